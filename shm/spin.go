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
