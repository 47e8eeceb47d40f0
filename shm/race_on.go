//go:build race

package shm

import (
	"runtime"
	"unsafe"
)

// raceDetector: Segment.held is no more than a guess, and read and written without
// order by those who unlock what they have not locked.
const raceDetector = true

// raceToken tells the race detector about the lock. It does not see what happens
// in mapped memory, and would take data on the heap that the lock guards for
// unguarded. (Go's own lockedfile.Mutex has a redundant mutex for the same
// reason.)
type raceToken struct{ _ uint64 }

func (t *raceToken) acquire() { runtime.RaceAcquire(unsafe.Pointer(t)) }
func (t *raceToken) release() { runtime.RaceReleaseMerge(unsafe.Pointer(t)) }
