package shm

import "runtime"

// Before it sleeps, a waiter looks a few times whether the wait is over: short
// sections are left again in less time than it takes to fall asleep. Each look
// takes the word's cache line from the owner, so there is some time between.

const pauseLoops = 40

// maxSpins is 0 on a single processor, where the owner cannot go on meanwhile.
var maxSpins = func() int {
	if runtime.NumCPU() == 1 {
		return 0
	}
	return 20
}()

//go:noinline
func pause() {
	for i := 0; i < pauseLoops; i++ {
	}
}

// stepBack lets a reader that has met a writer stay away from it, the longer the
// more often: one that keeps looking has the writer fetch its cache lines back
// each time, and slows it down several times. A writer that does not get done in
// that time wants a processor, perhaps this one.
func stepBack(try int) {
	switch {
	case try == 0:
	case try < triesAwake && maxSpins > 0:
		for range min(4<<try, maxPauses) {
			pause()
		}
	default:
		runtime.Gosched()
		yield()
	}
}

const (
	triesAwake = 8
	maxPauses  = 256
)
