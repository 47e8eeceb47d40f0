package shm

import (
	"math"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sleeping on a word of shared memory: futex(2), not the private kind, so that
// it works between processes that map the same file at different addresses.

const (
	futexWait = 0
	futexWake = 1
	everybody = math.MaxInt32
)

// sleep sleeps while *word is value, until woken, for at most d. It may return
// early for no reason (signals do that, and Go sends some). It reports whether
// the time was up.
func sleep(word *uint32, value uint32, d time.Duration) (timedOut bool) {
	ts := unix.NsecToTimespec(int64(d))
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWait, uintptr(value),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	return errno == unix.ETIMEDOUT
}

// wake wakes n who sleep on the word.
func wake(word *uint32, n int) {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(word)), futexWake, uintptr(n), 0, 0, 0)
}

// yield lets another process have the processor, if one wants it.
func yield() { unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
