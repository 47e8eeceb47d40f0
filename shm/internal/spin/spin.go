// Package spin lets a waiter look again and again for what another process does,
// before it sleeps. To fall asleep and be woken takes some ten microseconds, and costs
// the process that wakes it a system call.
package spin

import (
	"bytes"
	"os"
	"runtime"
	"time"
)

// Worthwhile is false on a machine with a single processor: nothing happens there
// while a process spins. A process that is bound to one processor of several is not
// alone: the others have theirs.
var Worthwhile = runtime.NumCPU() > 1 || machineHasSeveral()

// machineHasSeveral asks Linux. A list of one processor is a single number.
func machineHasSeveral() bool {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	return err == nil && bytes.ContainsAny(online, "-,")
}

// Pause passes the time between two looks, pauseTime or so: each look takes the cache
// line from the processor that is about to write it.
//
//go:noinline
func Pause() {
	for range 40 {
	}
}

const pauseTime = 20 * time.Nanosecond

// Patience is how long a waiter spins, as the last waits suggest. Where what it waits
// for comes often, it spins until then; where it does not, hardly at all. One goroutine
// at a time may use it.
type Patience struct {
	pauses int
}

const (
	minPauses = 16
	maxPauses = 2048 // 40 microseconds
	maxGap    = 128  // between two looks
	shortWait = 50 * time.Microsecond
)

// Spin looks whether the wait is over, until that is so or the patience has ended, and
// reports which.
func (p *Patience) Spin(over func() bool) bool {
	for spent, gap := 0, 1; spent < p.pauses; spent, gap = spent+gap, min(2*gap, maxGap) {
		if over() {
			p.pauses = min(2*p.pauses, maxPauses)
			return true
		}
		for range gap {
			Pause()
		}
	}
	return false
}

// Slept adapts the patience after a spin in vain and a sleep that took so long. If both
// together were short, it is better to spin.
func (p *Patience) Slept(d time.Duration) {
	switch {
	case !Worthwhile:
	case d+time.Duration(p.pauses)*pauseTime < shortWait:
		p.pauses = min(2*p.pauses+minPauses, maxPauses)
	default:
		p.pauses = max(p.pauses/2, minPauses)
	}
}
