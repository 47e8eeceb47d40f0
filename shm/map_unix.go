//go:build unix

package shm

import (
	"os"
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/edsrzf/mmap-go"
	"golang.org/x/sys/unix"
)

// keepFile: a mapping needs no open file once it stands.
const keepFile = false

// tombs says that the header of a detached segment can still be touched.
//
// Taking the lock costs two atomic operations, one to lock and one to unlock. To
// count calls in progress, so that a Detach in another goroutine waits for them,
// would cost two more, and double the price of a lock. Instead, Detach puts a
// page of private memory in the place of the header. A Lock that comes too late
// takes the word of that tomb, finds the attachment detached, and reports so.
// The collector removes the tomb when nobody can reach it.
const tombs = true

// fillsEmpty: who finds a file empty removes it, and makes another, that is his own
// and has the permissions he asks for.
const fillsEmpty = false

// headers counts those in memory, and the tombs in their place. After each so many
// the collector is asked to look: the system allows a process some ten thousand
// mappings.
var headers atomic.Int64

const headersPerCollection = 4096

// entomb replaces the header by memory that nobody else sees. This happens in
// one step: whoever looks sees the one or the other.
func entomb(b mmap.MMap) {
	at := unsafe.Pointer(unsafe.SliceData(b))
	// If there are no mappings left, the header stays, and with it the file's
	// memory, until the collector comes.
	unix.MmapPtr(-1, 0, at, uintptr(len(b)), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_FIXED|unix.MAP_PRIVATE|unix.MAP_ANON)
}

// unmapLater lets the collector unmap a header, or the tomb in its place.
func unmapLater(m *mapping) {
	runtime.AddCleanup(m, func(b mmap.MMap) {
		if b.Unmap() == nil {
			headers.Add(-1)
		}
	}, m.header)
	if headers.Add(1)%headersPerCollection == 0 {
		go runtime.GC()
	}
}

// mapAlign is what the offset of a mapping must be a multiple of.
func mapAlign() int { return os.Getpagesize() }

func outOfResources(error) bool { return false }
