// Package futex lets processes sleep on a word of memory that they share, and
// wake each other.
//
// Linux has futexes for this. On Windows a Word has a named event, on other
// systems a sleeper polls the word, at most every 2 ms.
package futex

import (
	"math"
	"sync/atomic"
	"time"
)

// All is the number of sleepers that a Word wakes if each Wake is to wake all
// of them.
const All = math.MaxInt32

// A Word is a 32-bit word of shared memory on which processes sleep. In each
// process, one goroutine at a time may sleep on it; any number of goroutines
// may wake and interrupt.
//
// The memory must stay mapped until no call uses the Word.
type Word struct {
	addr   *uint32
	id     uint64
	kind   string
	wakes  int
	ticket atomic.Uint32 // the number of Interrupts
	sleeps atomic.Uint32 // the number of beginnings and ends of Sleep: odd while a goroutine is in it
	system
}

// Init makes w the word at addr. The processes that share the word agree on id and
// kind, which together are unique on the machine, and on how many sleepers a Wake
// wakes: 1 or All.
func (w *Word) Init(addr *uint32, id uint64, kind string, wakes int) {
	w.addr, w.id, w.kind, w.wakes = addr, id, kind, wakes
}

// Ticket returns what Sleep needs to notice an Interrupt that precedes it. A
// goroutine takes the ticket before it looks for reasons not to sleep other
// than the word itself, such as a context that has ended.
func (w *Word) Ticket() uint32 { return w.ticket.Load() }

// Sleep waits while the word is value, for at most d, until a Wake, or until an
// Interrupt that came after Ticket returned ticket. It may return early for no
// reason.
//
// Sleep reports whether a Wake may have ended it. If a Wake wakes one sleeper
// only, a caller that gives up after that calls Wake itself, so that another
// sleeper is woken instead.
func (w *Word) Sleep(ticket, value uint32, d time.Duration) (woken bool) {
	w.sleeps.Add(1)
	defer w.sleeps.Add(1) // also if reading the word panics, since another process has truncated the file
	return w.ticket.Load() == ticket && w.sleep(ticket, value, d)
}

// Wake wakes one goroutine that sleeps on the word, of any process, or all of
// them, as Init was told. The caller has changed the word before.
func (w *Word) Wake() { w.wake() }

// Interrupt ends the Sleep of this process, and returns when that has returned.
// A Sleep that has not begun, but whose ticket was taken already, returns at
// once when it begins.
func (w *Word) Interrupt() {
	w.ticket.Add(1)
	sleeps := w.sleeps.Load()
	for pause := firstPause; sleeps%2 == 1 && w.sleeps.Load() == sleeps; pause = min(2*pause, lastPause) {
		w.interrupt()
		time.Sleep(pause)
	}
}

// How long Interrupt pauses between two looks whether the sleeper has returned.
const (
	firstPause = 5 * time.Microsecond
	lastPause  = time.Millisecond
)

// Close frees what the system holds for the word. No goroutine may use w
// meanwhile or afterwards.
func (w *Word) Close() { w.close() }
