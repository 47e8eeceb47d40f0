package shm

import (
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// onlyWakes makes naps so long that a sleep ends with a wake, or not at all.
func onlyWakes() { firstNap, lastNap = time.Hour, time.Hour }

// A sleeper that was not asleep in time sees by itself that the word has changed,
// which looks as if too many were woken: it does not, each time.
func TestAWakeOfTheLockWakesOne(t *testing.T) {
	first, last := firstNap, lastNap
	onlyWakes()
	defer func() { firstNap, lastNap = first, last }()
	store(t)
	seg := create(t, key, 8)
	word := seg.head.lockHalf()
	const n = 3
	one := func() bool {
		atomic.StoreUint32(word, waitersBit)
		woken := make(chan bool, n)
		for range n {
			go func() { woken <- sleep(word, waitersBit, time.Hour) }()
		}
		untilAsleep()
		atomic.StoreUint32(word, 0)
		wake(word, 1)
		<-woken
		untilAsleep() // in vain, if others have been woken
		only := len(woken) == 0
		for range n - 1 {
			wake(word, 1)
			<-woken
		}
		return only
	}
	for range 20 {
		if one() {
			return
		}
	}
	t.Error("others are woken too")
}

// Another's object may have the name, and another's event the rights.
func TestWithoutAnEventSleepersLookAgain(t *testing.T) {
	store(t)
	seg, other := create(t, key, 8), attach(t, key)
	for _, offset := range []int{192, 256} {
		name, _ := windows.UTF16PtrFromString(fmt.Sprintf(`Local\qshm-%016x-%d`, seg.m.id, offset))
		taken, err := windows.CreateMutex(nil, false, name)
		if err != nil {
			t.Fatal(err)
		}
		defer windows.CloseHandle(taken)
	}
	lock(t, seg)
	version := seg.Version()
	result := make(chan error)
	go func() { result <- other.Lock() }()
	go func() {
		_, err := other.Wait(t.Context(), version)
		result <- err
	}()
	waiting(t, seg)
	listening(t, seg)
	unlock(t, seg)
	for range 2 {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	events.Lock()
	defer events.Unlock()
	for word, event := range events.of {
		if event != 0 {
			t.Errorf("%p has an event", word)
		}
	}
}

func TestEventsEndWithTheMapping(t *testing.T) {
	store(t)
	for range 10 {
		seg := create(t, key, 8)
		wake(seg.head.lockHalf(), 1)
		wake(seg.head.bellWord(), everybody)
		if len(events.of) != 2 {
			t.Errorf("%d events of one segment", len(events.of))
		}
		detach(t, seg)
		if len(events.of) != 0 {
			t.Errorf("%d events are left", len(events.of))
		}
	}
}
