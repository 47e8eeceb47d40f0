//go:build unix

// Opening, identifying and removing files on Unix.

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// openFlags: no symbolic link is followed, and opening a pipe does not wait. With
// O_NONBLOCK package os leaves the mode of the descriptor alone; without, it costs
// four more system calls.
const openFlags = syscall.O_NOFOLLOW | syscall.O_NONBLOCK

func open(path string, flag int) (*os.File, error) {
	if flag == os.O_RDONLY {
		flag |= syscall.O_NONBLOCK
	}
	for {
		// Not os.OpenFile, which asks the poller about the file too.
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

func identifyPath(path string) (ID, error) {
	info, err := os.Lstat(path)
	if err != nil {
		return ID{}, err
	}
	return identify(nil, info)
}

func identify(_ *os.File, info fs.FileInfo) (ID, error) {
	stat := info.Sys().(*syscall.Stat_t)
	return ID{uint64(stat.Dev), uint64(stat.Ino)}, nil
}

func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// linked reports whether the open file still has a name.
func linked(info fs.FileInfo) bool { return info.Sys().(*syscall.Stat_t).Nlink > 0 }

// isSharingViolation reports whether a file could not be opened only because another
// process has it open.
func isSharingViolation(error) bool { return false }

// remove removes the file before it unlocks it, so that a waiter that gets the file
// lock finds the file unlinked.
func remove(f *File) error {
	failpoint("unlink")
	err := os.Remove(f.Path())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return f.Unlock()
}

func removeAside(string) error { return nil }
