package keymap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// EnvDir is the environment variable that names the store.
const EnvDir = "QSHM_DIR"

// sharedMemory is where Linux keeps files that are only in memory. It is a variable
// for tests.
var sharedMemory = "/dev/shm"

// Make returns the path of the store, after making the directory if it is missing and
// checking it. The store is the first of
//
//   - explicit, if that is not empty,
//   - $QSHM_DIR, if that is not empty,
//   - /dev/shm/qshm-<uid>, if that exists or this process may write to /dev/shm,
//   - qshm-<uid> in the temp directory; qshm on Windows.
//
// A store named by explicit or $QSHM_DIR is made with its parents, for the user alone.
// If it exists, its owner and mode are not checked, so that a group can share it. The
// user's own store must belong to the user and be closed to everyone else. No store
// may be a symbolic link: another user could change where it leads.
//
// Errors are *fs.PathError and name the directory: fs.ErrPermission for a store of
// another user or one that is open to others, and those of making a directory, but
// not fs.ErrNotExist.
func Make(explicit string) (string, error) {
	dir, private, err := choose(explicit)
	if err != nil {
		return "", err
	}
	err = check(dir, private)
	if errors.Is(err, fs.ErrNotExist) {
		mkdir := os.MkdirAll
		if private {
			mkdir = os.Mkdir
		}
		if err = mkdir(dir, 0o700); err == nil || errors.Is(err, fs.ErrExist) {
			err = check(dir, private)
		}
		if errors.Is(err, fs.ErrNotExist) { // which callers take for a missing segment
			err = &fs.PathError{Op: "mkdir", Path: dir, Err: errors.New("a directory above it does not exist")}
		}
	}
	if err != nil {
		return "", err
	}
	return dir, nil
}

// Find is Make, but does not make the store: it reports fs.ErrNotExist if there is
// none.
func Find(explicit string) (string, error) {
	dir, private, err := choose(explicit)
	if err != nil {
		return "", err
	}
	if err := check(dir, private); err != nil {
		return "", err
	}
	return dir, nil
}

// choose returns the path of the store, and whether it is the user's own.
func choose(explicit string) (dir string, private bool, err error) {
	if explicit == "" {
		explicit = os.Getenv(EnvDir)
	}
	if explicit != "" {
		dir, err = filepath.Abs(explicit)
		return dir, false, err
	}
	dir = filepath.Join(sharedMemory, ownName())
	if _, err := os.Lstat(dir); err == nil || writable(sharedMemory) {
		return dir, true, nil
	}
	return filepath.Join(os.TempDir(), ownName()), true, nil
}

// check reports why dir cannot be the store.
func check(dir string, private bool) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		err = errors.New("it is a symbolic link; name the directory itself")
	case !info.IsDir():
		err = errors.New("it is not a directory; name another store")
	case private && !owned(info):
		err = fmt.Errorf("%w: it belongs to another user; set %s to a directory of your own", fs.ErrPermission, EnvDir)
	case private && exposed(info):
		err = fmt.Errorf("%w: it is open to other users (mode %04o); chmod 700 it, or set %s to share on purpose",
			fs.ErrPermission, info.Mode().Perm(), EnvDir)
	default:
		return nil
	}
	return &fs.PathError{Op: "open store", Path: dir, Err: err}
}
