// Opening, identifying and removing files on Windows.

package lockfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/windows"
)

// openFlags: making a symbolic link takes a privilege, and pipes have no paths.
const openFlags = 0

// open allows the file to be renamed, which is how remove frees a path.
func open(path string, flag int) (*os.File, error) {
	access := uint32(windows.GENERIC_READ)
	if flag == os.O_RDWR {
		access |= windows.GENERIC_WRITE
	}
	// For a moment, a process that takes the file lock or removes the file does not share it.
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		file, err := openShared(path, access, windows.FILE_SHARE_DELETE, windows.FILE_ATTRIBUTE_NORMAL)
		if !isSharingViolation(err) || time.Since(start) > time.Second {
			return file, err
		}
	}
}

// openShared opens a file so that others may read and write it, and do what else share
// allows.
func openShared(path string, access, share, attributes uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	handle, err := windows.CreateFile(name, access, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|share,
		nil, windows.OPEN_EXISTING, attributes, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(handle), path), nil
}

func identifyPath(path string) (ID, error) {
	file, err := openAttributes(path)
	if err != nil {
		return ID{}, err
	}
	defer file.Close()
	return identify(file, nil)
}

// openAttributes opens what is at path to look at its attributes, which conflicts with
// no process that has it open. os.Lstat does conflict: it shares nothing, and wine
// refuses that for a file that is mapped.
func openAttributes(path string) (*os.File, error) {
	return openShared(path, windows.FILE_READ_ATTRIBUTES, windows.FILE_SHARE_DELETE,
		windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS)
}

func identify(file *os.File, _ fs.FileInfo) (ID, error) {
	var info windows.ByHandleFileInformation
	if err := windows.GetFileInformationByHandle(windows.Handle(file.Fd()), &info); err != nil {
		return ID{}, &fs.PathError{Op: "identify", Path: file.Name(), Err: err}
	}
	return ID{uint64(info.VolumeSerialNumber), uint64(info.FileIndexHigh)<<32 | uint64(info.FileIndexLow)}, nil
}

func owner(fs.FileInfo) uint32 { return 0 }

// linked reports true: a file that flock has open keeps its name on Windows.
func linked(fs.FileInfo) bool { return true }

// isSharingViolation reports whether a file could not be opened only because another
// process has it open without sharing it, or because it is about to be removed.
func isSharingViolation(err error) bool {
	return errors.Is(err, windows.ERROR_SHARING_VIOLATION) || errors.Is(err, windows.ERROR_DELETE_PENDING)
}

const asidePrefix = ".removed."

// remove unlocks the file, renames it, which is possible while others have it mapped,
// and removes it, which is not. If the process dies in between, or others have the file
// mapped, removeAside removes it later.
func remove(f *File) error {
	path := f.Path()
	// While this is open, no other file can be taken for this one. On NTFS none is
	// anyway, but in wine a new file can have the number of one just removed.
	file, err := open(path, os.O_RDONLY)
	if err == nil {
		defer file.Close()
		if f.info.Size() == 0 {
			err = markRemoved(path)
		}
	}
	if err = errors.Join(err, f.Unlock()); err != nil {
		return err
	}
	var token [8]byte
	rand.Read(token[:]) // never fails
	aside := filepath.Join(filepath.Dir(path), fmt.Sprintf("%s%x", asidePrefix, token))
	failpoint("set_aside")
	// A file can be neither removed nor renamed while another process has it open
	// without sharing it. flock opens files so, for a moment when it tries to lock
	// them, and for as long as it holds the lock.
	for start := time.Now(); ; time.Sleep(10 * time.Millisecond) {
		err = setAside(path, aside, f.info)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			break
		}
		if time.Since(start) > Patience {
			return err
		}
	}
	failpoint("remove_aside")
	os.Remove(aside)
	return nil
}

// markRemoved makes an empty file that is about to be removed two bytes long. Its
// creator, if it has not locked the file yet, gets the lock when this process unlocks
// it: without the mark the creator would use a file that is then removed. The byte
// written is not the first one: flock locks that, and locks are mandatory on Windows.
func markRemoved(path string) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteAt([]byte{0}, 1)
	return errors.Join(err, file.Close())
}

// setAside renames the file that info describes, and no other that may be at the path
// by now. So it renames an open file, and opens that without sharing, because wine
// renames what is at the path that the file was opened by, whatever that is.
//
// If the path leads to another file already, setAside has nothing to do. It asks that
// by an open that conflicts with nothing: processes that use a successor would
// otherwise keep it waiting.
func setAside(path, aside string, info fs.FileInfo) error {
	if same, err := leadsTo(path, info); err != nil || !same {
		return err
	}
	file, err := openShared(path, windows.DELETE|windows.FILE_READ_ATTRIBUTES, 0, windows.FILE_ATTRIBUTE_NORMAL)
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

// leadsTo reports whether the file that info describes is at path.
func leadsTo(path string, info fs.FileInfo) (bool, error) {
	file, err := openAttributes(path)
	if err != nil {
		return false, err
	}
	defer file.Close()
	now, err := file.Stat()
	return err == nil && os.SameFile(now, info), err
}

func removeAside(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), asidePrefix) {
			os.Remove(filepath.Join(dir, e.Name()))
		}
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = nil // without a store there are no such files
	}
	return err
}
