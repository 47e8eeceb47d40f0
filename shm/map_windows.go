package shm

import (
	"errors"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/windows"
)

// keepFile: mmap-go's Unmap flushes the file, so it must still be open.
const keepFile = true

// tombs: a mapping cannot be replaced in one step here, so that every call is
// counted, and the last one out unmaps.
const tombs = false

// fillsEmpty: who finds a file empty makes it his segment, whoever it was that
// made it and has not locked it yet, or died. To remove it, all who have it open
// would have to get out of the way, and others keep coming.
const fillsEmpty = true

func entomb(b mmap.MMap) {
	closeEvents(headerAt(b))
	b.Unmap()
}

func unmapLater(*mapping) {}

// mapAlign is what the offset of a mapping must be a multiple of: the allocation
// granularity, which is 64 KiB on every Windows.
func mapAlign() int { return 64 << 10 }

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
