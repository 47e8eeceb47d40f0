package futex

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/windows"
)

// eachWay runs a test the one way that there is here.
func eachWay(t *testing.T, test func(*testing.T)) { test(t) }

func otherWay() string { return "" }

func setWay(string) {}

const polls = false

// onlyWakes makes naps so long that a sleep ends with an event or not at all.
func onlyWakes(t *testing.T) {
	first, last := firstNap, lastNap
	t.Cleanup(func() { firstNap, lastNap = first, last })
	setOnlyWakes()
}

func setOnlyWakes() { firstNap, lastNap = time.Hour, time.Hour }

// An object of another kind may have the name already.
func TestWithoutASharedEvent(t *testing.T) {
	words := newWords(t, 2, All)
	name, err := words[0].eventName()
	if err != nil {
		t.Fatal(err)
	}
	mutex, err := windows.CreateMutex(nil, false, name)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(mutex)
	ended := sleepers(words)
	if words[0].shared != 0 {
		t.Error("there is a shared event")
	}
	words[1].Interrupt()
	if i := next(t, ended); i != 1 {
		t.Errorf("the sleep of %d ends", i)
	}
	atomic.StoreUint32(words[0].addr, 1)
	words[1].Wake()
	next(t, ended)
}

// A wake that comes when nobody sleeps ends the next sleep early, and no more.
func TestEventThatNobodyWaitedFor(t *testing.T) {
	onlyWakes(t)
	for _, wakes := range []int{1, All} {
		words := newWords(t, 2, wakes)
		words[0].Wake()
		if !words[0].Sleep(words[0].Ticket(), 0, long) {
			t.Error("not woken")
		}
		wantNone(t, sleepers(words))
		for _, w := range words {
			w.Interrupt()
		}
	}
}

func TestCloseFreesTheEvents(t *testing.T) {
	w := new(Word)
	w.Init(new(uint32), rand.Uint64(), "word", 1)
	w.Wake()
	own, shared := w.events()
	w.Close()
	for _, event := range []windows.Handle{own, shared} {
		if err := windows.SetEvent(event); err == nil {
			t.Error("an event is left")
		}
	}
}
