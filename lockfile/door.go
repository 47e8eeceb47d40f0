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

// A Door is an exclusive lock on a file that is known to be still linked: as
// long as all who remove the file hold its door, nobody can take it away.
type Door struct {
	lock *flock.Flock
	info fs.FileInfo
}

// Enter locks the existing file at path, waiting for whoever is inside. It
// reports fs.ErrNotExist if there is no file, and an error that wraps the
// context's if that ends first.
//
// Only regular files have doors. A symbolic link is not followed.
func Enter(ctx context.Context, path string) (*Door, error) {
	for {
		door, err := lockAt(path, os.O_RDWR|asItIs, 0, func(lock *flock.Flock) error { return acquire(ctx, lock) })
		if err != nil || door != nil {
			return door, err
		}
		// Whoever was inside before us removed the file. Look who is there now.
	}
}

// ErrInside: TryEnter found somebody inside.
var ErrInside = errors.New("somebody else is inside")

// TryEnter is Enter that does not wait: it reports ErrInside instead.
func TryEnter(path string) (*Door, error) {
	door, err := lockAt(path, os.O_RDWR|asItIs, 0, func(lock *flock.Flock) error {
		ok, err := tryLock(lock)
		if err == nil && !ok {
			err = ErrInside
		}
		return err
	})
	if err == nil && door == nil {
		err = &fs.PathError{Op: "lock", Path: path, Err: fs.ErrNotExist}
	}
	return door, err
}

// Make creates the file at path and locks it. It reports fs.ErrExist if there is
// a file already, also if somebody else got hold of the new one first.
//
// A process that dies right after leaves an empty file.
func Make(path string, perm fs.FileMode) (*Door, error) {
	door, err := lockAt(path, os.O_RDWR|os.O_CREATE|os.O_EXCL|asItIs, perm, func(lock *flock.Flock) error {
		return acquire(context.Background(), lock)
	})
	if door != nil && door.info.Size() > 0 {
		door.Leave() // somebody was inside before us: it is his by now, or about to go (see condemn)
		door = nil
	}
	if err == nil && door == nil {
		err = fs.ErrExist // created, found empty, and used or cleaned away before we had locked it
	}
	return door, err
}

// lockAt opens one file and locks it by acquire. Without a door and an error, the
// file was unlinked before the lock was ours.
func lockAt(path string, flag int, perm fs.FileMode, acquire func(*flock.Flock) error) (*Door, error) {
	lock := flock.New(path, flock.SetFlag(flag), flock.SetPermissions(perm))
	if err := acquire(lock); err != nil {
		if flag&os.O_EXCL == 0 && !errors.Is(err, fs.ErrNotExist) && !regular(path) {
			err = fmt.Errorf("%w: %w", ErrNotRegular, err) // systems differ in what they say of it
		}
		return nil, pathError("lock", path, err)
	}
	fault("inside")
	info, err := lock.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = &fs.PathError{Op: "lock", Path: path, Err: ErrNotRegular}
	case linked(info):
		return &Door{lock, info}, nil
	}
	lock.Unlock()
	return nil, err
}

func regular(path string) bool {
	info, err := os.Lstat(path)
	return err != nil || info.Mode().IsRegular()
}

// ErrNotRegular: a directory, a symbolic link or the like stands at the path.
var ErrNotRegular = errors.New("not a regular file")

const (
	firstPoll = 200 * time.Microsecond
	lastPoll  = 5 * time.Millisecond
)

// acquire waits in the kernel's own queue if nothing can end the wait. A wait
// that can be ended has to ask again and again, because flock(2) cannot be
// interrupted: doors are held for microseconds, so once or twice does.
func acquire(ctx context.Context, lock *flock.Flock) error {
	for pause := firstPoll; ; pause = min(2*pause, lastPoll) {
		if err := ctx.Err(); err != nil {
			return err
		}
		ok, err := tryLock(lock)
		switch {
		case ok || err != nil:
			return err
		case ctx.Done() == nil:
			if err := lock.Lock(); !errors.Is(err, syscall.EINTR) && !busy(err) {
				return err
			}
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// tryLock is TryLock without the reasons to ask again that are none.
func tryLock(lock *flock.Flock) (bool, error) {
	for {
		ok, err := lock.TryLock()
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case busy(err):
			return false, nil
		}
		return ok, err
	}
}

// Info describes the locked file as it was when the door was entered.
func (d *Door) Info() fs.FileInfo { return d.info }

// Leave opens the door for the next.
func (d *Door) Leave() error {
	fault("leave")
	return pathError("unlock", d.lock.Path(), d.lock.Unlock())
}

// Remove takes the file's name away and leaves. Who has the file open or mapped
// keeps it.
//
// Where a file that is open cannot lose its name, on Windows, it is renamed, and
// the door has to be left before: whoever enters in between must be able to tell
// by the file that it is to go, and removes it too. RemoveAside removes what was
// renamed, when it is not in use any more.
func (d *Door) Remove() error { return removeFile(d.lock, d.info) }

func pathError(op, path string, err error) error {
	var named *fs.PathError
	if err == nil || errors.As(err, &named) {
		return err
	}
	return &fs.PathError{Op: op, Path: path, Err: err}
}
