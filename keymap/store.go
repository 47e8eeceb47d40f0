package keymap

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// EnvDir is the environment variable that names the store.
const EnvDir = "QSHM_DIR"

// sharedMemory is where Linux keeps memory that has a name: a file system that
// never touches a disk. A variable so that a test can take it away.
var sharedMemory = "/dev/shm"

// Dir returns the store to use, made and checked: explicit if that is not
// empty, else $QSHM_DIR, else a directory of the user's own under /dev/shm or,
// where there is none, under the temp directory.
//
// A directory that the caller named, by explicit or $QSHM_DIR, is made with its
// parents if it is missing; whom it belongs to and who may enter is the caller's
// business, so that a group or several containers can share it. The user's own
// must belong to the user and be closed to everybody else. Neither may be a
// symbolic link: who can replace it could lead us elsewhere.
//
// The error is an *fs.PathError that names the directory. It wraps
// fs.ErrPermission where the directory is somebody else's or open to others.
func Dir(explicit string) (string, error) {
	if explicit == "" {
		explicit = os.Getenv(EnvDir)
	}
	if explicit != "" {
		dir, err := filepath.Abs(explicit)
		if err != nil {
			return "", err
		}
		return dir, makeStore(dir, os.MkdirAll, false)
	}
	shared := filepath.Join(sharedMemory, ownName())
	err := makeStore(shared, os.Mkdir, true)
	if unusable(err) {
		temp := filepath.Join(os.TempDir(), ownName())
		return temp, makeStore(temp, os.Mkdir, true)
	}
	return shared, err
}

// unusable tells that the shared memory directory is not there or not for us to
// write, as in many sandboxes. Anything else, a full one above all, is an error
// to report: going elsewhere would part us from those who came before.
func unusable(err error) bool {
	var path *fs.PathError
	return errors.As(err, &path) && path.Op == "mkdir" &&
		(errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS))
}

func makeStore(dir string, mkdir func(string, fs.FileMode) error, private bool) error {
	info, err := os.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		if err := mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
		info, err = os.Lstat(dir)
	}
	if err != nil {
		return err
	}
	return check(dir, info, private)
}

func check(dir string, info fs.FileInfo, private bool) error {
	refuse := func(err error) error { return &fs.PathError{Op: "open store", Path: dir, Err: err} }
	switch {
	case info.Mode()&fs.ModeSymlink != 0:
		return refuse(fmt.Errorf("%w: it is a symbolic link; name the directory itself", syscall.ENOTDIR))
	case !info.IsDir():
		return refuse(fmt.Errorf("%w; name another store", syscall.ENOTDIR))
	case private && !owned(info):
		return refuse(fmt.Errorf("%w: it belongs to another user; set %s to a directory of your own", fs.ErrPermission, EnvDir))
	case private && exposed(info):
		return refuse(fmt.Errorf("%w: it is open to other users (mode %04o); chmod 700 it, or set %s to share on purpose",
			fs.ErrPermission, info.Mode().Perm(), EnvDir))
	}
	return nil
}
