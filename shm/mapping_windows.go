package shm

import (
	"errors"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/windows"
)

// headerOutlivesDetach: a mapping cannot be replaced in one step here, so every
// call is counted, and the last one unmaps.
const headerOutlivesDetach = false

// mapsBeyondEnd: a mapping that is longer than the file makes the file longer.
const mapsBeyondEnd = false

func unmapFirst(b mmap.MMap, _ int) { unmapRegion(b) }

func unmapLater(*mapping, mmap.MMap) {}

// maxMappings: the address space is the only limit here.
func maxMappings() int64 { return 0 }

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
