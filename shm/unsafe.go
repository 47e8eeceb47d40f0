package shm

import (
	"sync/atomic"
	"unsafe"
)

// Everything that is unsafe in this package: typed views of mapped memory. The
// callers have checked the bounds; mapped memory and headerBuffer's are aligned.

// headerAt returns the header at the beginning of b.
func headerAt(b []byte) *header { return (*header)(unsafe.Pointer(unsafe.SliceData(b))) }

// slotsAt returns the n slots that follow the header at the beginning of b.
func slotsAt(b []byte, n int) []slot {
	_ = b[slotsOff+n*slotSize-1]
	return unsafe.Slice((*slot)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), slotsOff)), n)
}

// headerBuffer returns n bytes of heap, aligned as a header has to be.
func headerBuffer(n int) ([]byte, *header) {
	words := make([]uint64, (n+7)/8)
	b := unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(words))), n)
	return b, headerAt(b)
}

// lockHalf is the half of the lock word that names the owner: waiters sleep on it.
// It does not touch the header, which can be missing: &h.word would, as a check for
// nil.
func (h *header) lockHalf() *uint32 {
	p := unsafe.Add(unsafe.Pointer(h), unsafe.Offsetof(h.word))
	if nativeBigEndian {
		p = unsafe.Add(p, 4)
	}
	return (*uint32)(p)
}

// eventWord is the event word: waiters for the version sleep on it.
func (h *header) eventWord() *uint32 {
	return (*uint32)(unsafe.Add(unsafe.Pointer(h), unsafe.Offsetof(h.event)))
}

// wordsAround returns the aligned 32-bit words that b lies in, and where in the
// first one b begins. Mapped memory comes in pages, so the words do not reach
// beyond it.
func wordsAround(b []byte) (words []atomic.Uint32, begin int) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	begin = int(uintptr(p) & 3)
	return unsafe.Slice((*atomic.Uint32)(unsafe.Add(p, -begin)), (begin+len(b)+3)/4), begin
}

// contains reports whether addr lies in b.
func contains(b []byte, addr uintptr) bool {
	return addr-uintptr(unsafe.Pointer(unsafe.SliceData(b))) < uintptr(len(b))
}

// wordAt returns the aligned 32-bit word that addr lies in, which lies in b.
func wordAt(b []byte, addr uintptr) *atomic.Uint32 {
	p := unsafe.Pointer(unsafe.SliceData(b))
	return (*atomic.Uint32)(unsafe.Add(p, (addr-uintptr(p))&^3))
}

// typedAt returns a T at the beginning of b, and whether it is aligned there.
func typedAt[T any](b []byte) (*T, bool) {
	var zero T
	p := unsafe.Pointer(unsafe.SliceData(b))
	return (*T)(p), uintptr(p)%unsafe.Alignof(zero) == 0
}

// typedSlice returns n consecutive values from first on.
func typedSlice[T any](first *T, n int) []T { return unsafe.Slice(first, n) }

// bytesOf returns the memory of v.
func bytesOf[T any](v *T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(v)), unsafe.Sizeof(*v))
}
