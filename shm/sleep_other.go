//go:build !linux && !windows

package shm

import (
	"sync/atomic"
	"time"
)

// Where the system offers nothing to sleep on that processes can share, waiting
// is looking again, ever more rarely.

const (
	firstNap  = 50 * time.Microsecond
	lastNap   = 2 * time.Millisecond
	everybody = 0
)

// sleep sleeps while *word is value, for at most d. It reports whether the time
// was up.
func sleep(word *uint32, value uint32, d time.Duration) (timedOut bool) {
	end := time.Now().Add(d)
	for nap := firstNap; atomic.LoadUint32(word) == value; nap = min(2*nap, lastNap) {
		left := time.Until(end)
		if left <= 0 {
			return true
		}
		time.Sleep(min(nap, left))
	}
	return false
}

// wake has nothing to do: the sleepers see that the word has changed.
func wake(*uint32, int) {}

// yield has nothing to do: who waits long sleeps, and others run meanwhile.
func yield() {}
