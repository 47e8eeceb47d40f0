package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"github.com/gofrs/flock"
	"golang.org/x/sys/windows"
)

// asItIs: making a symbolic link takes a privilege here, and pipes have no paths.
const asItIs = 0

// linked is always true: a file that flock has open keeps its name on Windows.
func linked(fs.FileInfo) bool { return true }

// readable is always true: who may open a file is not in its mode.
func readable(fs.FileInfo) bool { return true }

// busy reports whether opening failed only because somebody else has it open,
// in a way that does not share, or because it is about to vanish.
func busy(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

// While others have a file open without sharing it, which flock does for the
// moment of a look or while it waits, it can be neither removed nor renamed. Of
// many who come at once each has its moment; who takes longer is stopped.
const (
	removePatience = 10 * time.Second
	removePause    = time.Millisecond
)

func insist(f func() error) (err error) {
	for start := time.Now(); ; time.Sleep(removePause) {
		err = f()
		switch {
		case err == nil || errors.Is(err, fs.ErrNotExist):
			return nil
		case time.Since(start) > removePatience:
			return err
		}
	}
}

// removeLocked unlocks first, because an open file cannot be removed here.
func removeLocked(lock *flock.Flock) error {
	if err := lock.Unlock(); err != nil {
		return pathError("unlock", lock.Path(), err)
	}
	fault("remove")
	return insist(func() error { return os.Remove(lock.Path()) })
}

const asidePrefix = ".gone."

// removeFile unlocks the file, renames it, which is possible while others have it
// mapped, and removes it, which is not. If we die in between, or others have it
// mapped, RemoveAside does the rest.
func removeFile(lock *flock.Flock, info fs.FileInfo) error {
	path := lock.Path()
	// As long as this is open no other file can pass for this one. On NTFS none
	// does anyway, but wine's files may have the number of a file just removed.
	file, err := Open(path, os.O_RDONLY)
	if err == nil {
		defer file.Close()
		if info.Size() == 0 {
			err = condemn(path)
		}
	}
	if unlock := lock.Unlock(); err == nil {
		err = pathError("unlock", path, unlock)
	}
	if err != nil {
		return err
	}
	token, err := randomToken()
	if err != nil {
		return err
	}
	aside := filepath.Join(filepath.Dir(path), fmt.Sprintf("%s%016x", asidePrefix, token))
	fault("set aside")
	if err := insist(func() error { return setAside(path, aside, info) }); err != nil {
		return err
	}
	fault("remove aside")
	os.Remove(aside)
	return nil
}

// Open opens the existing file at path, by os.O_RDONLY or os.O_RDWR, to look at
// what a door is for. The file can be renamed meanwhile, which is how Remove frees
// a path here.
func Open(path string, flag int) (*os.File, error) {
	access := uint32(windows.GENERIC_READ)
	if flag == os.O_RDWR {
		access |= windows.GENERIC_WRITE
	}
	return openShared(path, access, windows.FILE_SHARE_DELETE)
}

// openShared opens a file so that others may read and write it, and what else
// share says.
func openShared(path string, access, share uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	handle, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|share,
		nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

// condemn marks an empty file that is about to be removed, by a zero, for a creator
// that has not locked it yet: when the door has been left, he could take it for
// still his, and what he makes of it would be removed. Not the first byte: flock
// locks that, and locks are mandatory here.
func condemn(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte{0}, 1)
	if closed := file.Close(); err == nil {
		err = closed
	}
	return err
}

// setAside renames the file that info describes, and no other that may stand at
// the path by now: so it does that by an open file, whose name it is. Another who
// does the same meanwhile is kept out, because wine renames what stands at the
// path at which the file was opened, whatever that is by then.
//
// Whether the path still leads to our file is asked first, by an open that nobody
// is in the way of: if not, there is nothing to rename, and a successor that many
// have open would keep us out until we run out of patience.
func setAside(path, aside string, info fs.FileInfo) error {
	if same, err := LeadsTo(path, info); err != nil || !same {
		return err
	}
	file, err := openShared(path, windows.DELETE|windows.FILE_READ_ATTRIBUTES, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	if now, err := file.Stat(); err != nil || !os.SameFile(now, info) {
		return err
	}
	// FILE_RENAME_INFO
	var rename struct {
		flags  uint32
		root   windows.Handle
		length uint32
		name   [1024]uint16
	}
	to, err := windows.UTF16FromString(aside)
	if err == nil && len(to) > len(rename.name) {
		err = windows.ERROR_FILENAME_EXCED_RANGE
	}
	if err != nil {
		return pathError("rename", path, err)
	}
	rename.length = uint32(2 * (copy(rename.name[:], to) - 1))
	err = windows.SetFileInformationByHandle(windows.Handle(file.Fd()), windows.FileRenameInfo,
		(*byte)(unsafe.Pointer(&rename)), uint32(unsafe.Sizeof(rename)))
	return pathError("rename", path, err)
}

// LeadsTo reports whether the file that info describes stands at path. An open for
// the attributes alone is in no conflict with those who have the file open. Not
// os.SameFile with os.Lstat: that shares nothing when it opens the file, which
// wine refuses for one that is mapped, and then says that it is another.
func LeadsTo(path string, info fs.FileInfo) (bool, error) {
	file, err := openShared(path, windows.FILE_READ_ATTRIBUTES, windows.FILE_SHARE_DELETE)
	if err != nil {
		return false, err
	}
	defer file.Close()
	now, err := file.Stat()
	return err == nil && os.SameFile(now, info), err
}

// RemoveAside removes files that have lost their names while they were in use,
// as far as that has ended.
func RemoveAside(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), asidePrefix) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // the store is gone, and they with it
	}
	return err
}
