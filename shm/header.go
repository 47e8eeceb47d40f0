package shm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"qshm/keymap"
)

// This file is the layout of a segment's file: a header, then the data. It is
// documented for other languages in FORMAT.md, and versioned.

// header is the beginning of the file, in the byte order of the machine. The
// fields before state are written once, by the creator, before anybody else can
// attach. What several processes touch at once is atomic, and what they touch
// often has cache lines of its own.
type header struct {
	// The first byte stays zero: it is what the door locks on Windows, where
	// nobody else can read or write a locked byte.
	magic    [8]byte
	order    uint32 // reads as byteOrder
	format   uint32
	dataOff  uint32 // size of the header: where the data begins
	slots    uint32 // how many attachments there can be
	id       uint64 // random: tells a segment from its successor
	size     uint64 // of the data, exact
	created  int64  // nanoseconds since 1970, UTC
	pid, uid uint32 // of the creator
	keyLen   uint32 // of the whole key; the first of its bytes stand in key
	_        uint32
	hash     [keymap.HashSize]byte // of the whole key
	_        [32]byte

	state atomic.Uint32 // stateMaking, …
	refs  atomic.Uint32 // attachments, at the least: see claim
	_     [56]byte

	word atomic.Uint64 // the lock and the version: see lock.go
	_    [56]byte

	bell atomic.Uint32 // wakes those who wait for the version: see version.go
	_    [60]byte

	key [maxStoredKey]byte
	// The slots follow.
}

// slot is one attachment. It is taken when token is not zero.
type slot struct {
	token atomic.Uint64 // the presence of the process, see lockfile.Presence
	meta  atomic.Uint64 // pid 32, generation 16, mode 16
}

const (
	formatVersion = 1
	byteOrder     = 0x01020304
	maxStoredKey  = 256

	slotsOff  = int(unsafe.Sizeof(header{}))
	slotSize  = int(unsafe.Sizeof(slot{}))
	minHeader = 4096
	maxHeader = 2 << 20 // what is read of a file that may be anything
	maxSlots  = math.MaxUint16

	modeReadOnly = 1
)

var magic = [8]byte{0, 'q', 's', 'h', 'm', '\r', '\n', 0x1a}

// The states of a segment. A crash leaves any of them behind.
const (
	stateMaking  = iota // the creator is at work, or died: garbage
	stateLive           // garbage too, if no process that is attached is alive
	stateDead           // its last process is about to remove the file, or died: garbage
	stateRemoved        // the key is free; who is attached goes on
)

// shape is what a header says about itself. It is checked once and then kept on
// the heap: the file may be somebody else's work, and change.
type shape struct {
	dataOff int
	slots   int
	size    int
	id      uint64
	created int64
}

// newShape lays a segment out.
func newShape(size, slots int) (shape, error) {
	page := mapAlign()
	dataOff := max(minHeader, page)
	switch {
	case size <= 0:
		return shape{}, fmt.Errorf("%w: %d bytes; a segment has at least one", ErrSize, size)
	case slots < 0 || slots > maxSlots:
		return shape{}, fmt.Errorf("%w: a segment takes 1 to %d attachments", ErrSize, maxSlots)
	case slots == 0:
		slots = min((dataOff-slotsOff)/slotSize, maxSlots)
	default:
		dataOff = max(dataOff, (slotsOff+slots*slotSize+page-1)/page*page)
	}
	if size > math.MaxInt-dataOff {
		return shape{}, fmt.Errorf("%w: %d bytes are more than this machine can address", ErrSize, size)
	}
	return shape{dataOff: dataOff, slots: slots, size: size}, nil
}

// readShape checks a header that stands in a file of fileSize bytes.
func readShape(h *header, key string, fileSize int64) (shape, error) {
	corrupt := func(format string, args ...any) (shape, error) {
		return shape{}, fmt.Errorf("%w: %s; this version leaves it alone: use another key, or remove the file by hand",
			ErrCorrupt, fmt.Sprintf(format, args...))
	}
	switch {
	case h.magic != magic:
		return corrupt("the file was not made by qshm")
	case h.order != byteOrder:
		return corrupt("it was made on a machine of the other byte order")
	case h.format != formatVersion:
		return corrupt("it has format %d, and this version knows %d", h.format, formatVersion)
	case h.dataOff < minHeader || h.dataOff > maxHeader || int64(h.dataOff) > fileSize || h.slots == 0 || h.slots > maxSlots ||
		int64(h.slots) > (int64(h.dataOff)-int64(slotsOff))/int64(slotSize):
		return corrupt("its header contradicts itself")
	case int(h.dataOff)%mapAlign() != 0:
		return corrupt("it was made with other page sizes")
	case h.size == 0 || h.size > uint64(fileSize-int64(h.dataOff)):
		return corrupt("it is truncated: %d bytes of file for %d of header and %d of data", fileSize, h.dataOff, h.size)
	case h.size > math.MaxInt-uint64(h.dataOff):
		return corrupt("it is larger than this machine can address")
	case key != "" && h.hash != keymap.Hash(key):
		return corrupt("it was made for another key of the same name")
	}
	return shape{int(h.dataOff), int(h.slots), int(h.size), h.id, h.created}, nil
}

// fresh returns the header that a creator writes; what follows are zeros.
func (s shape) fresh(key string) []byte {
	b, h := headerBuffer(slotsOff)
	h.magic = magic
	h.order = byteOrder
	h.format = formatVersion
	h.dataOff = uint32(s.dataOff)
	h.slots = uint32(s.slots)
	h.id = s.id
	h.size = uint64(s.size)
	h.created = s.created
	h.pid = uint32(os.Getpid())
	h.uid = uint32(max(os.Geteuid(), 0))
	h.hash = keymap.Hash(key)
	h.keyLen = uint32(min(uint64(len(key)), math.MaxUint32))
	copy(h.key[:], key)
	return b
}

// storedKey returns as much of the key as the header holds.
func (h *header) storedKey() string {
	return string(h.key[:min(h.keyLen, maxStoredKey)])
}

// halfMade reports whether a file's beginning is that of one whose creator died
// before it wrote the header: nothing, or zeros. The first byte has not been read,
// so a file of one byte may be anything.
func halfMade(page []byte, fileSize int64) bool {
	return fileSize != 1 && len(bytes.TrimLeft(page, "\x00")) == 0
}

// making reports whether a header is that of a creator which has not come to an
// end, so that the file may be shorter than the header says.
func (h *header) making() bool {
	return h.magic == magic && h.order == byteOrder && h.format == formatVersion && h.state.Load() == stateMaking
}

// The meta of a slot.

const (
	genBits = 13
	genMask = 1<<genBits - 1
)

func packMeta(pid int, gen uint32, mode uint16) uint64 {
	return uint64(uint32(pid)) | uint64(gen&genMask)<<32 | uint64(mode)<<48
}

func metaPID(m uint64) int       { return int(uint32(m)) }
func metaGen(m uint64) uint32    { return uint32(m>>32) & genMask }
func metaReadOnly(m uint64) bool { return m>>48&modeReadOnly != 0 }

var nativeBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1
