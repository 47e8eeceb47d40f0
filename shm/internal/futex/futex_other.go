//go:build !linux && !windows

package futex

import (
	"sync/atomic"
	"time"
)

// Elsewhere there is nothing that processes could sleep on together: a sleeper
// polls the word and the ticket.
type system struct{}

// How long a sleeper pauses between two looks.
const (
	firstNap = 50 * time.Microsecond
	lastNap  = 2 * time.Millisecond
)

func (w *Word) sleep(ticket, value uint32, d time.Duration) (woken bool) {
	end := time.Now().Add(d)
	for nap := firstNap; atomic.LoadUint32(w.addr) == value && w.ticket.Load() == ticket; nap = min(2*nap, lastNap) {
		left := time.Until(end)
		if left <= 0 {
			break
		}
		time.Sleep(min(nap, left))
	}
	return false
}

func (w *Word) wake() {}

func (w *Word) interrupt() {}

func (*system) close() {}

// Yield does nothing on this system: a caller that waits for long sleeps.
func Yield() {}
