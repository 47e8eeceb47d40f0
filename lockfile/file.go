// The file lock, through github.com/gofrs/flock, which only this package imports.

package lockfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"
	"time"

	"github.com/gofrs/flock"
)

// A File is a file whose file lock this process holds. When the lock was taken, the
// file was linked at its path. As long as every process that removes the file holds
// its file lock, it stays linked until this one unlocks it.
type File struct {
	lock *flock.Flock
	info fs.FileInfo
}

// Patience bounds a wait for the file lock if the context has no deadline. It is a
// variable for tests.
var Patience = 10 * time.Second

var (
	// ErrBusy is reported by Lock after Patience.
	ErrBusy = errors.New("other processes have held the file lock")

	// ErrLocked is reported by TryLock if another process holds the file lock.
	ErrLocked = errors.New("another process holds the file lock")

	// ErrNotRegular is reported for a directory, a symbolic link, or anything else
	// at the path that is not a regular file.
	ErrNotRegular = errors.New("not a regular file")
)

// Lock takes the file lock of the existing regular file at path. It does not follow
// a symbolic link, except on Windows, where it takes a privilege to make one.
//
// Lock waits while another process, or another goroutine, holds the lock. The wait
// ends with ctx, or after Patience if ctx has no deadline. If the file is removed
// meanwhile, Lock starts over with the file that is at path then.
//
// Errors: fs.ErrNotExist, ErrNotRegular, ErrBusy, the error of ctx, and those of
// opening a file for reading and writing.
func Lock(ctx context.Context, path string) (*File, error) {
	if err := ctx.Err(); err != nil {
		return nil, pathError("lock", path, err)
	}
	f, err := TryLock(path)
	if !errors.Is(err, ErrLocked) {
		return f, err
	}
	var patience <-chan time.Time
	if _, ok := ctx.Deadline(); !ok {
		patience = time.After(Patience)
	}
	for start := time.Now(); errors.Is(err, ErrLocked); {
		pause := min(max(time.Since(start)/4, firstPoll), lastPoll)
		select {
		case <-ctx.Done():
			return nil, pathError("lock", path, fmt.Errorf("%w; another process held the file lock meanwhile", ctx.Err()))
		case <-patience:
			return nil, pathError("lock", path, fmt.Errorf(
				"%w for %v; they are many, or one is stopped, or is initialising the segment, or may merely read the file", ErrBusy, Patience))
		case <-time.After(pause):
		}
		f, err = TryLock(path)
	}
	return f, err
}

// Lock polls, because a wait inside flock(2) cannot be ended by a context. A pause is a
// quarter of the time so far, so that many who wait do not slow down the one that has
// the lock.
const (
	firstPoll = 50 * time.Microsecond
	lastPoll  = 50 * time.Millisecond
)

var openExisting = flock.SetFlag(os.O_RDWR | openFlags)

// TryLock is Lock, but reports ErrLocked instead of waiting.
func TryLock(path string) (*File, error) { return tryLock(path, openExisting) }

// Create creates the file at path and takes its file lock. The file is empty. A
// process that dies in Create can leave an unlocked empty file.
//
// Errors: fs.ErrExist if there is a file, or if another process has locked or used
// the new file before this one could lock it, and those of creating a file.
func Create(path string, perm fs.FileMode) (*File, error) {
	failpoint("create_file")
	f, err := tryLock(path, flock.SetFlag(os.O_RDWR|os.O_CREATE|os.O_EXCL|openFlags), flock.SetPermissions(perm))
	if err == nil && f.info.Size() > 0 {
		f.Unlock()
		f, err = nil, ErrLocked
	}
	if errors.Is(err, ErrLocked) {
		err = &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	return f, err
}

// tryLock opens the file at path and locks it, without waiting. If the file has been
// removed between the two, tryLock starts over.
func tryLock(path string, options ...flock.Option) (*File, error) {
	for {
		lock := flock.New(path, options...)
		ok, err := lock.TryLock()
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case isSharingViolation(err), err == nil && !ok:
			return nil, pathError("lock", path, ErrLocked)
		case err != nil:
			// Systems differ in what they say about opening a directory or a link.
			if info, lerr := os.Lstat(path); lerr == nil && !info.Mode().IsRegular() && !errors.Is(err, fs.ErrExist) {
				return nil, &fs.PathError{Op: "lock", Path: path, Err: ErrNotRegular}
			}
			return nil, pathError("lock", path, err)
		}
		failpoint("still_linked")
		info, err := lock.Stat()
		if err == nil && info.Mode().IsRegular() && linked(info) {
			return &File{lock, info}, nil
		}
		unlock(lock)
		switch {
		case err != nil:
			return nil, pathError("lock", path, err)
		case !info.Mode().IsRegular():
			return nil, &fs.PathError{Op: "lock", Path: path, Err: ErrNotRegular}
		}
	}
}

// Info describes the file as it was when it was locked.
func (f *File) Info() fs.FileInfo { return f.info }

// Path returns the path that the file was locked by.
func (f *File) Path() string { return f.lock.Path() }

// Unlock releases the file lock.
func (f *File) Unlock() error {
	failpoint("unlock_file")
	return unlock(f.lock)
}

// Remove removes the file and releases the file lock. A process that has the file
// open or mapped keeps it. If the file cannot be removed, the caller still has to call
// Unlock; except on Windows, the file lock is held until then.
//
// Windows cannot remove a file that is open. There the file is unlocked, renamed
// within its directory, and then removed, by RemoveAside if it is still in use. A
// process that locks an empty file between the unlocking and the renaming finds it
// marked: it is not empty any more, and must be removed by that process too.
func (f *File) Remove() error { return remove(f) }

func unlock(lock *flock.Flock) error {
	for {
		if err := lock.Unlock(); !errors.Is(err, syscall.EINTR) {
			return pathError("unlock", lock.Path(), err)
		}
	}
}

func pathError(op, path string, err error) error {
	if err == nil {
		return nil
	}
	if named := (*fs.PathError)(nil); errors.As(err, &named) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
