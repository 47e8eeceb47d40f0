package futex

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// On Linux a sleeper waits for two futexes at once: the word, which all
// processes share, and the ticket, which is private to this process. An
// Interrupt wakes the ticket's, so no other process can notice it. The kernel
// compares both with the values that are expected, so a wake that comes before
// the wait is not lost.
//
// Kernels before 5.16, and some sandboxes, lack futex_waitv(2). There a sleeper
// waits for the word only, with a bit that this process has chosen at random,
// and Interrupt wakes the sleepers with that bit: another process's sleeper
// with the same bit, one of 32, wakes for no reason and sleeps again.
type system struct{}

// See futex(2) and futex_waitv(2).
const (
	futexWake       = 1
	futexWaitBitset = 9
	futexWakeBitset = 10
	futexPrivate    = 128 // a flag of both calls
	futex32         = 2   // the size of a futex, for futex_waitv
)

// A waiter is one futex for futex_waitv.
type waiter struct {
	value uint64
	addr  uint64
	flags uint32
	_     uint32
}

// hasWaitv reports whether the system has futex_waitv. It is a variable for
// tests.
var hasWaitv = sync.OnceValue(func() bool {
	_, _, errno := unix.Syscall6(unix.SYS_FUTEX_WAITV, 0, 0, 0, 0, 0, 0)
	return errno == unix.EINVAL // it exists, and refuses to wait for nothing
})

// ownBit is the bit of this process, used where there is no futex_waitv.
var ownBit uint32 = 1 << rand.IntN(32)

// longest is the longest time that sleep sleeps, so that the sum with the clock
// does not overflow.
const longest = time.Hour

func (w *Word) sleep(ticket, value uint32, d time.Duration) (woken bool) {
	var now unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	end := now.Nano() + int64(min(d, longest))
	if !hasWaitv() {
		until := unix.NsecToTimespec(end)
		_, _, errno := unix.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.addr)), futexWaitBitset, uintptr(value),
			uintptr(unsafe.Pointer(&until)), 0, uintptr(ownBit))
		return errno == 0
	}
	// If both have been woken, the call returns the last one's index, so the
	// word comes last.
	waiters := [...]waiter{
		{value: uint64(ticket), addr: uint64(uintptr(unsafe.Pointer(&w.ticket))), flags: futex32 | futexPrivate},
		{value: uint64(value), addr: uint64(uintptr(unsafe.Pointer(w.addr))), flags: futex32},
	}
	until := [2]int64{end / 1e9, end % 1e9} // 64 bits each on every processor
	last, _, errno := unix.Syscall6(unix.SYS_FUTEX_WAITV, uintptr(unsafe.Pointer(&waiters)), uintptr(len(waiters)), 0,
		uintptr(unsafe.Pointer(&until)), unix.CLOCK_MONOTONIC, 0)
	runtime.KeepAlive(w)
	return errno == 0 && last == 1
}

func (w *Word) wake() {
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.addr)), futexWake, uintptr(w.wakes), 0, 0, 0)
}

func (w *Word) interrupt() {
	if hasWaitv() {
		unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&w.ticket)), futexWake|futexPrivate, 1, 0, 0, 0)
		return
	}
	unix.RawSyscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(w.addr)), futexWakeBitset, All, 0, 0, uintptr(ownBit))
}

func (*system) close() {}

// Yield lets another process run on this processor, if one is ready to.
func Yield() { unix.Syscall(unix.SYS_SCHED_YIELD, 0, 0, 0) }
