// Looking at files without a lock. The files open_unix.go and open_windows.go define
// what differs: openFlags, open, identifyPath, identify, owner, linked,
// isSharingViolation, remove and removeAside.

package lockfile

import (
	"io/fs"
	"os"
)

// Open opens the existing file at path with os.O_RDONLY or os.O_RDWR, and does not
// lock it. Except on Windows it does not follow a symbolic link. It does not wait for
// the other end of a pipe.
// While the file is open, File.Remove can remove it.
func Open(path string, flag int) (*os.File, error) { return open(path, flag) }

// An ID tells two existing files apart, whatever their paths are. It is comparable.
type ID struct{ device, file uint64 }

// Identify returns the ID of the file at path. It does not follow a symbolic link.
func Identify(path string) (ID, error) { return identifyPath(path) }

// Stat describes and identifies an open file.
func Stat(file *os.File) (fs.FileInfo, ID, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, ID{}, err
	}
	id, err := identify(file, info)
	return info, id, err
}

// Owner returns the user ID of the file's owner, and 0 on Windows.
func Owner(info fs.FileInfo) uint32 { return owner(info) }

// RemoveAside removes the files in dir that File.Remove has renamed because they were
// in use, unless they still are. It has nothing to do but on Windows.
func RemoveAside(dir string) error { return removeAside(dir) }
