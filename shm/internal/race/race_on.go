//go:build race

package race

import (
	"runtime"
	"unsafe"
)

// Enabled reports whether the program is built with the race detector.
const Enabled = true

// A Token stands for one lock.
type Token struct{ _ uint64 }

// Acquire is called after the lock was taken: what happened before a Release
// happened before it.
func (t *Token) Acquire() { runtime.RaceAcquire(unsafe.Pointer(t)) }

// Release is called before the lock is released.
func (t *Token) Release() { runtime.RaceReleaseMerge(unsafe.Pointer(t)) }
