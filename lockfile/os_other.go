//go:build !unix && !windows

package lockfile

import (
	"io/fs"
	"os"

	"github.com/gofrs/flock"
)

// Systems without file locks: every lock fails with errors.ErrUnsupported, so
// nothing below is ever reached with a lock in hand.

const asItIs = 0

// Open opens the existing file at path.
func Open(path string, flag int) (*os.File, error) { return os.OpenFile(path, flag, 0) }

// LeadsTo reports whether the file that info describes stands at path.
func LeadsTo(path string, info fs.FileInfo) (bool, error) {
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, info), err
}

func linked(fs.FileInfo) bool   { return true }
func readable(fs.FileInfo) bool { return true }
func busy(error) bool           { return false }

func removeLocked(lock *flock.Flock) error {
	os.Remove(lock.Path())
	return lock.Unlock()
}

func removeFile(lock *flock.Flock, _ fs.FileInfo) error { return removeLocked(lock) }

// RemoveAside has nothing to do.
func RemoveAside(dir string) error { return nil }
