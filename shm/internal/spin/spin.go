// Package spin lets a goroutine look again and again for what another process does,
// before it sleeps.
package spin

import (
	"bytes"
	"os"
	"runtime"
	"time"
)

// PauseTime is how long a Pause takes, more or less.
const PauseTime = 20 * time.Nanosecond

// Pause is for the time between two looks: each look takes the cache line from the
// processor that is about to write it.
//
//go:noinline
func Pause() {
	for range 40 {
	}
}

// Worthwhile is false on a machine with a single processor: nothing happens there
// while a process spins. A process that is bound to one processor of several is not
// alone: the others have theirs.
var Worthwhile = runtime.NumCPU() > 1 || machineHasSeveral()

// machineHasSeveral asks Linux. A list of one processor is a single number.
func machineHasSeveral() bool {
	online, err := os.ReadFile("/sys/devices/system/cpu/online")
	return err == nil && bytes.ContainsAny(online, "-,")
}
