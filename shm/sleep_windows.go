package shm

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Sleeping on a word of shared memory, where the system has nothing for that
// between processes. The word says whether to go on sleeping, and is looked at
// again, ever more rarely; an event ends the nap that is left. It is a hint and no
// more. If it cannot be had, or processes do not share it, since they are of
// different sessions, there is the next look.
//
// Each word has an event, named after the segment and the word. It wakes one
// sleeper, or, if none is there, the next to come, in vain. All are woken by one
// after the other: who finds that the bell has rung passes it on. Who sleeps anew
// may take what was meant for one that had looked at the word and was not asleep
// yet: that one is at its first nap then, a short one.

// Naps are variables for the tests.
var (
	firstNap = time.Millisecond
	lastNap  = 25 * time.Millisecond
)

const (
	// A wait that nobody ends takes whole milliseconds, and mostly lasts until the
	// next tick of the system's clock, of which there are 64 a second. Go's own
	// sleep is finer.
	shortNap  = time.Millisecond / 2
	everybody = 0
)

// sleep sleeps while *word is value, for at most d. It reports whether the time
// was up.
func sleep(word *uint32, value uint32, d time.Duration) (timedOut bool) {
	event := eventOf(word)
	end := time.Now().Add(d)
	for nap := firstNap; atomic.LoadUint32(word) == value; nap = min(2*nap, lastNap) {
		left := min(nap, time.Until(end))
		switch {
		case left <= 0:
			return true
		case event == 0 || left < shortNap:
			time.Sleep(left)
		default:
			ms := (left + time.Millisecond - 1) / time.Millisecond
			signal, _ := windows.WaitForSingleObject(event, uint32(ms))
			if signal == windows.WAIT_OBJECT_0 && word == headerOf(word).bellWord() && atomic.LoadUint32(word) != value {
				windows.SetEvent(event) // for the next one who heard the bell
			}
		}
	}
	return false
}

// wake wakes one who sleeps on the word, or all who listen to the bell, for it has
// changed. Who waits for the lock in vain, as Detach has ended the attachment, goes
// on sleeping until it is to look whether the owner lives.
func wake(word *uint32, _ int) {
	if event := eventOf(word); event != 0 {
		windows.SetEvent(event)
	}
}

// events are those this process has opened, or zero where that has failed.
var events struct {
	sync.Mutex
	of map[*uint32]windows.Handle
}

// eventOf returns the event of a word in a header.
func eventOf(word *uint32) windows.Handle {
	events.Lock()
	defer events.Unlock()
	event, ok := events.of[word]
	if !ok {
		h := headerOf(word)
		offset := uintptr(unsafe.Pointer(word)) - uintptr(unsafe.Pointer(h))
		name, _ := windows.UTF16PtrFromString(fmt.Sprintf(`Local\qshm-%016x-%d`, h.id, offset))
		event, _ = windows.CreateEvent(nil, 0, 0, name) // resets itself; the error says that it was there
		if events.of == nil {
			events.of = map[*uint32]windows.Handle{}
		}
		events.of[word] = event
	}
	return event
}

// closeEvents gives back the events of a header that is about to go: nobody
// sleeps on its words, and nobody will.
func closeEvents(h *header) {
	events.Lock()
	defer events.Unlock()
	for _, word := range []*uint32{h.lockHalf(), h.bellWord()} {
		if event := events.of[word]; event != 0 {
			windows.CloseHandle(event)
		}
		delete(events.of, word)
	}
}

// headerOf returns the header that the word is in, which its mapping begins with.
func headerOf(word *uint32) *header {
	p := unsafe.Pointer(word)
	return (*header)(unsafe.Add(p, -int(uintptr(p)%uintptr(mapAlign()))))
}

// yield has nothing to do: who waits long sleeps, and others run meanwhile.
func yield() {}
