// Record locks on Linux: open file description locks.

package lockfile

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// recordBase is the offset of slot 0's byte, far beyond the end of every file.
const recordBase = 1 << 40

// A question takes no lock on Linux.
const recordQuestionsLock = false

var records struct {
	asked   sync.Once
	missing bool
}

// haveRecordLocks asks the system about one byte of the file. Some sandboxes have no
// open file description locks.
func haveRecordLocks(file *os.File) bool {
	records.asked.Do(func() {
		err := fcntl(file, unix.F_OFD_GETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: recordBase, Len: 1})
		records.missing = errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
	})
	return !records.missing
}

func lockRecord(file *os.File, i int) (bool, error) {
	err := fcntl(file, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: recordBase + int64(i), Len: 1})
	switch {
	case err == nil:
		return true, nil
	case err == unix.EAGAIN || err == unix.EACCES:
		return false, nil
	}
	return false, &fs.PathError{Op: "lock slot", Path: file.Name(), Err: err}
}

func unlockRecord(file *os.File, i int) {
	fcntl(file, unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_UNLCK, Start: recordBase + int64(i), Len: 1})
}

// recordsLocked reports whether another open file description holds any of n slots.
// It asks for a conflict with a read lock: a shared lock, which a process that may
// only read the file can take, is no holder.
func recordsLocked(file *os.File, first, n int) bool {
	lock := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: recordBase + int64(first), Len: int64(n)}
	return fcntl(file, unix.F_OFD_GETLK, &lock) != nil || lock.Type != unix.F_UNLCK
}

func fcntl(file *os.File, cmd int, lock *unix.Flock_t) error {
	for {
		if err := unix.FcntlFlock(file.Fd(), cmd, lock); err != unix.EINTR {
			return err
		}
	}
}
