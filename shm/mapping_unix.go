//go:build unix

package shm

import (
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// headerOutlivesDetach: a call that comes after Detach can still read the header.
//
// An uncontended Lock and Unlock are one compare-and-swap each. To count these
// calls, so that a Detach in another goroutine can wait for them, would cost two
// more. Instead, Detach replaces the header by a page of private memory. A Lock
// that comes too late takes the word of that page, finds the attachment detached,
// and reports so. The garbage collector unmaps the page when nothing refers to it.
const headerOutlivesDetach = true

// mapsBeyondEnd: a mapping may be longer than the file; the rest can be used when
// the file has grown.
const mapsBeyondEnd = true

const headersPerCollection = 4096

// unmapFirst unmaps the first region of a mapping, but for the header, which it
// replaces by memory of its own in one step, so that a reader of the header sees the
// one or the other. If the system does not allow that, the header stays, and with it
// the file's memory, until the garbage collector unmaps it.
//
// Not by mmap-go, which unmaps only what it has mapped as a whole.
func unmapFirst(b mmap.MMap, dataOff int) {
	start := unsafe.Pointer(unsafe.SliceData(b))
	if rest := len(b) - dataOff; rest > 0 {
		unix.MunmapPtr(unsafe.Add(start, dataOff), uintptr(rest))
	}
	unix.MmapPtr(-1, 0, start, uintptr(dataOff), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANON)
}

// unmapLater lets the garbage collector unmap a header, or its replacement. After
// each headersPerCollection of them it is told to look, because the system allows
// a process some ten thousand mappings.
func unmapLater(m *mapping, header mmap.MMap) {
	runtime.AddCleanup(m, func(b mmap.MMap) {
		if unix.MunmapPtr(unsafe.Pointer(unsafe.SliceData(b)), uintptr(len(b))) == nil {
			mappings.Add(-1)
		}
	}, header)
	if mappings.Load()%headersPerCollection == 0 {
		go runtime.GC()
	}
}

// maxMappings returns how many mappings the system allows to a process; 0: it
// does not say.
var maxMappings = sync.OnceValue(func() int64 {
	text, _ := os.ReadFile("/proc/sys/vm/max_map_count")
	n, _ := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	return n
})

// mapAlign is what the offset of a mapping must be a multiple of.
func mapAlign() int { return os.Getpagesize() }

func outOfResources(error) bool { return false }
