// Record locks on Windows: LockFileEx on two bytes for each slot. A claim is an
// exclusive lock on the first of them, a question a shared lock on both. The second
// byte makes the ranges differ: if a handle has an exclusive and a shared lock on the
// same range, unlocking it ends the exclusive one.

package lockfile

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/windows"
)

// recordBase is the offset of slot 0's bytes, far beyond the end of every file. Locks
// are mandatory on Windows: nothing must be stored there.
const recordBase = 1 << 40

// A question is a lock for a moment on Windows.
const recordQuestionsLock = true

func haveRecordLocks(*os.File) bool { return true }

func lockRecord(file *os.File, i int) (bool, error) {
	err := windows.LockFileEx(windows.Handle(file.Fd()),
		windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, overlapped(i))
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, windows.ERROR_LOCK_VIOLATION) || errors.Is(err, windows.ERROR_IO_PENDING):
		return false, nil
	}
	return false, &fs.PathError{Op: "lock slot", Path: file.Name(), Err: err}
}

func unlockRecord(file *os.File, i int) {
	windows.UnlockFileEx(windows.Handle(file.Fd()), 0, 1, 0, overlapped(i))
}

// recordsLocked reports whether another handle holds any of n slots. The exclusive
// locks of this handle do not conflict with the question.
func recordsLocked(file *os.File, first, n int) bool {
	handle, size := windows.Handle(file.Fd()), uint32(2*n)
	if windows.LockFileEx(handle, windows.LOCKFILE_FAIL_IMMEDIATELY, 0, size, 0, overlapped(first)) != nil {
		return true
	}
	windows.UnlockFileEx(handle, 0, size, 0, overlapped(first))
	return false
}

// overlapped says where the bytes of slot i begin.
func overlapped(i int) *windows.Overlapped {
	offset := uint64(recordBase + 2*int64(i))
	return &windows.Overlapped{Offset: uint32(offset), OffsetHigh: uint32(offset >> 32)}
}
