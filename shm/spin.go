package shm

import (
	"runtime"

	"qshm/shm/internal/futex"
	"qshm/shm/internal/spin"
)

// Before a waiter for the lock sleeps, it looks a few times whether the lock is free:
// short critical sections end in less time than it takes to fall asleep. Each look
// takes the word's cache line from the owner, so there is some time between them. A
// waiter for the version looks as often as the last waits suggest: see spin.Patience.

// maxSpins is 0 on a single processor, where the owner cannot go on meanwhile.
var maxSpins = func() int {
	if !spin.Worthwhile {
		return 0
	}
	return 20
}()

// backoff keeps a reader that has met a writer away from it, the longer the more
// often. A reader that keeps looking makes the writer fetch its cache lines again
// each time, and slows it down several times. A writer that does not finish in that
// time needs a processor, perhaps this one.
func backoff(try int) {
	switch {
	case try == 0:
	case try < triesAwake && maxSpins > 0:
		for range min(4<<try, maxPauses) {
			spin.Pause()
		}
	default:
		runtime.Gosched()
		futex.Yield()
	}
}

const (
	triesAwake = 8
	maxPauses  = 256
)
