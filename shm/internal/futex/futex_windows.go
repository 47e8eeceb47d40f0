package futex

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/windows"
)

// Windows has nothing that threads of several processes can sleep on like a
// futex. A sleeper polls the word and the ticket, ever more rarely, and events
// end its naps: one that the processes share, by its name, and one of its own,
// for Interrupt. The events are hints: if one cannot be had, or if the
// processes do not share it because they belong to different sessions, the next
// look decides.
//
// An event resets itself. Setting the shared one ends the nap of one sleeper
// or, if there is none, the next nap that begins. To wake all, each sleeper
// that was woken and finds the word changed sets it again for the next one. A
// sleeper that had looked at the word, but was not napping yet, can miss its
// turn if another one sleeps again quickly; it is at the beginning of a nap
// then, and the first naps are short.
type system struct {
	mu     sync.Mutex
	opened bool // both have been asked for
	own    windows.Handle
	shared windows.Handle
}

// The lengths of naps are variables for tests.
var (
	firstNap = time.Millisecond
	lastNap  = 25 * time.Millisecond
)

// A wait that no event ends lasts whole milliseconds, and mostly until the next
// tick of the system's clock, of which there are 64 a second. Naps shorter than
// this are Go's own sleep, which is finer.
const shortNap = time.Millisecond / 2

func (w *Word) sleep(ticket, value uint32, d time.Duration) (woken bool) {
	own, shared := w.events()
	handles := [...]windows.Handle{own, shared}
	waitFor := handles[:]
	if shared == 0 {
		waitFor = handles[:1]
	}
	end := time.Now().Add(d)
	for nap := firstNap; atomic.LoadUint32(w.addr) == value && w.ticket.Load() == ticket; nap = min(2*nap, lastNap) {
		left := min(nap, time.Until(end))
		switch {
		case left <= 0:
			return false
		case own == 0 || left < shortNap:
			time.Sleep(left)
		default:
			ms := (left + time.Millisecond - 1) / time.Millisecond
			event, _ := windows.WaitForMultipleObjects(waitFor, false, uint32(ms))
			if event == windows.WAIT_OBJECT_0+1 {
				if w.wakes > 1 && atomic.LoadUint32(w.addr) != value {
					windows.SetEvent(shared)
				}
				return true
			}
		}
	}
	return false
}

func (w *Word) wake() {
	if _, shared := w.events(); shared != 0 {
		windows.SetEvent(shared)
	}
}

func (w *Word) interrupt() {
	if own, _ := w.events(); own != 0 {
		windows.SetEvent(own)
	}
}

// events returns the events, or zero for those that cannot be had.
func (w *Word) events() (own, shared windows.Handle) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.opened {
		w.opened = true
		w.own, _ = windows.CreateEvent(nil, 0, 0, nil)
		if name, err := w.eventName(); err == nil {
			w.shared, _ = windows.CreateEvent(nil, 0, 0, name) // an error may say that it exists, which is fine
		}
	}
	return w.own, w.shared
}

// eventName returns the name of the shared event.
func (w *Word) eventName() (*uint16, error) {
	return windows.UTF16PtrFromString(fmt.Sprintf(`Local\qshm-%016x-%s`, w.id, w.kind))
}

func (s *system) close() {
	for _, event := range []windows.Handle{s.own, s.shared} {
		if event != 0 {
			windows.CloseHandle(event)
		}
	}
	s.own, s.shared, s.opened = 0, 0, false
}

// Yield does nothing on this system: a caller that waits for long sleeps.
func Yield() {}
