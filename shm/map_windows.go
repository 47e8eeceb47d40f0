package shm

import (
	"errors"
	"io/fs"
	"os"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/windows"
)

// keepFile: mmap-go's Unmap flushes the file, so it must still be open.
const keepFile = true

// tombs: a mapping cannot be replaced in one step here, so that every call is
// counted, and the last one out unmaps.
const tombs = false

// takesOver: who finds a file empty makes it his segment, whoever it was that
// made it and has not locked it yet, or died. To remove it, all who have it open
// would have to get out of the way, and others keep coming.
const takesOver = true

func entomb(b mmap.MMap) {
	closeEvents(headerAt(b))
	b.Unmap()
}

func unmapLater(*mapping) {}

// mapAlign is what the offset of a mapping must be a multiple of: the allocation
// granularity, which is 64 KiB on every Windows.
func mapAlign() int { return 64 << 10 }

// openFile opens a segment's file so that others can rename it meanwhile: that is
// how Remove frees a key here.
func openFile(path string) (*os.File, error) {
	return openShared(path, windows.GENERIC_READ|windows.GENERIC_WRITE)
}

// openToLook opens a file that is only to be read.
func openToLook(path string) (*os.File, error) { return openShared(path, windows.GENERIC_READ) }

func openShared(path string, access uint32) (*os.File, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err == nil {
		var file windows.Handle
		file, err = windows.CreateFile(name, access,
			windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE,
			nil, windows.OPEN_EXISTING, windows.FILE_ATTRIBUTE_NORMAL, 0)
		if err == nil {
			return os.NewFile(uintptr(file), path), nil
		}
	}
	return nil, &fs.PathError{Op: "open", Path: path, Err: err}
}

func outOfResources(err error) bool {
	for _, target := range []error{
		windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_NOT_ENOUGH_MEMORY,
		windows.ERROR_OUTOFMEMORY, windows.ERROR_COMMITMENT_LIMIT, windows.ERROR_TOO_MANY_OPEN_FILES,
	} {
		if errors.Is(err, target) {
			return true
		}
	}
	return false
}

// sameFile reports whether path still names the file that info describes. The
// path is opened, because Go asks for a path's identity in a way that wine
// refuses while somebody has the file open.
func sameFile(path string, info fs.FileInfo) bool {
	file, err := openToLook(path)
	if err != nil {
		return false
	}
	defer file.Close()
	now, err := file.Stat()
	return err == nil && os.SameFile(now, info)
}
