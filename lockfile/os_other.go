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
