//go:build unix

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"github.com/gofrs/flock"
)

// asItIs opens what stands at the path: no symbolic link is followed, and no pipe
// waited for.
const asItIs = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

// Open opens the existing file at path, by os.O_RDONLY or os.O_RDWR, to look at
// what a door is for. Symbolic links are not followed, and no pipe is waited for.
// The file can be removed meanwhile.
func Open(path string, flag int) (*os.File, error) {
	if flag == os.O_RDONLY {
		flag |= syscall.O_NONBLOCK
	}
	for {
		// Not os.OpenFile, which asks further whether the file is one to poll.
		fd, err := syscall.Open(path, flag|syscall.O_NOFOLLOW|syscall.O_CLOEXEC, 0)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return nil, &fs.PathError{Op: "open", Path: path, Err: err}
		}
		return os.NewFile(uintptr(fd), path), nil
	}
}

// LeadsTo reports whether the file that info describes stands at path.
func LeadsTo(path string, info fs.FileInfo) (bool, error) {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, info), err
}

// linked reports whether the open file still has a name.
func linked(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return !ok || stat.Nlink > 0
}

// readable reports whether all users may open the file for reading.
func readable(info fs.FileInfo) bool { return info.Mode().Perm()&0o444 == 0o444 }

// busy reports whether opening failed only because somebody else has it open.
func busy(error) bool { return false }

// removeLocked removes first and unlocks then: whoever waits for the lock finds
// the file without a name.
func removeLocked(lock *flock.Flock) error {
	fault("remove")
	err := os.Remove(lock.Path())
	fault("unlock what is gone")
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if unlock := lock.Unlock(); err == nil {
		err = pathError("unlock", lock.Path(), unlock)
	}
	return err
}

func removeFile(lock *flock.Flock, _ fs.FileInfo) error { return removeLocked(lock) }

// RemoveAside has nothing to do: a file vanishes here with its last user.
func RemoveAside(dir string) error { return nil }
