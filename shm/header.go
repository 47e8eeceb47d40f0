package shm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"sync/atomic"
	"unsafe"

	"qshm/keymap"
	"qshm/lockfile"
)

// The layout of a segment's file: a header, then the data. FORMAT.md describes it
// for other languages.

// header is the beginning of the file, in the byte order of the machine. The
// creator writes the fields before state once, before any other process can
// attach. The fields after that are atomic; those that processes write often
// have cache lines of their own.
type header struct {
	magic    [8]byte // the first byte is zero: the file lock locks it on Windows, where a locked byte cannot be read
	order    uint32  // reads as byteOrder
	format   uint32
	dataOff  uint32 // the size of the header: the data begin there
	slots    uint32 // how many attachments there can be
	id       uint64 // random: tells a segment from its successor
	created  int64  // nanoseconds since 1970, UTC
	pid, uid uint32 // of the creator
	locks    uint32 // the kind of the slot locks
	keyLen   uint32 // of the whole key; its first bytes stand in key
	_        uint64
	hash     [keymap.HashSize]byte // of the whole key
	_        [32]byte

	state atomic.Uint32 // stateMaking, …
	refs  atomic.Uint32 // the reference count: see publish
	size  atomic.Uint64 // of the data, exact; see Grow
	_     [48]byte

	word atomic.Uint64 // the lock and the version: see lock.go
	_    [56]byte

	event atomic.Uint32 // wakes the waiters for the version: see wait.go
	_     [60]byte

	key [maxStoredKey]byte
	// The slots follow.
}

// slot is one attachment:
//
//	63     34       33      32 31      0
//	  serial  read-only  taken    pid
//
// Only the process that holds the slot's lock writes the slot. The serial number
// counts how often the slot was claimed.
type slot = atomic.Uint64

const (
	slotTaken    = 1 << 32
	slotReadOnly = 1 << 33
	slotSerial   = 34 // the lowest bit of the serial number
	slotPID      = 1<<32 - 1

	formatVersion = 2
	byteOrder     = 0x01020304
	maxStoredKey  = 256

	slotsOff  = int(unsafe.Sizeof(header{}))
	slotSize  = int(unsafe.Sizeof(slot{}))
	minHeader = 4096
	maxHeader = 2 << 20 // a file may be anything: no more than this is read of it
	maxSlots  = math.MaxUint16
)

var magic = [8]byte{0, 'q', 's', 'h', 'm', '\r', '\n', 0x1a}

// The states of a segment. A crash can leave any of them behind.
const (
	stateMaking  = iota // the creator is at work, or has died: garbage
	stateLive           // garbage, if no live process is attached
	stateDead           // the last process was about to remove the file: garbage
	stateRemoved        // the key is free; attached processes go on
)

// shape is what a header says about the segment. It is checked once and kept on
// the heap, because the file may change or be another program's.
type shape struct {
	dataOff int
	slots   int
	size    int // when the shape was read: a segment can grow
	id      uint64
	created int64
	locks   lockfile.Kind
	hash    [keymap.HashSize]byte
}

// newShape lays out a segment.
func newShape(key string, size, slots int) (shape, error) {
	page := mapAlign()
	dataOff := max(minHeader, page)
	switch {
	case size <= 0:
		return shape{}, fmt.Errorf("%w: %d bytes; a segment has at least one", ErrSize, size)
	case slots == asManyAsFit:
		slots = min((dataOff-slotsOff)/slotSize, maxSlots)
	case slots < 1 || slots > maxSlots:
		return shape{}, fmt.Errorf("%w: MaxAttachments(%d); a segment takes 1 to %d", ErrSize, slots, maxSlots)
	default:
		dataOff = max(dataOff, (slotsOff+slots*slotSize+page-1)/page*page)
	}
	if err := checkSize(size, dataOff); err != nil {
		return shape{}, err
	}
	return shape{dataOff: dataOff, slots: slots, size: size, hash: keymap.Hash(key)}, nil
}

func checkSize(size, dataOff int) error {
	if size > math.MaxInt-dataOff {
		return fmt.Errorf("%w: %d bytes are more than this machine can address", ErrSize, size)
	}
	return nil
}

// readShape checks the header of a file of fileSize bytes.
func readShape(h *header, key string, fileSize int64) (shape, error) {
	corrupt := func(format string, args ...any) (shape, error) {
		return shape{}, fmt.Errorf("%w: %s; use another key, or remove the file by hand",
			ErrCorrupt, fmt.Sprintf(format, args...))
	}
	size := h.size.Load()
	switch {
	case h.magic != magic:
		return corrupt("the file was not made by qshm")
	case h.order != byteOrder:
		return corrupt("the file was made on a machine of the other byte order")
	case h.format != formatVersion:
		return corrupt("the file has format %d, and this version knows format %d", h.format, formatVersion)
	case h.dataOff < minHeader || h.dataOff > maxHeader || int64(h.dataOff) > fileSize || h.slots == 0 || h.slots > maxSlots ||
		int64(h.slots) > (int64(h.dataOff)-int64(slotsOff))/int64(slotSize):
		return corrupt("the header contradicts itself")
	case int(h.dataOff)%mapAlign() != 0:
		return corrupt("the file was made with another page size")
	case size == 0 || size > uint64(fileSize-int64(h.dataOff)):
		return corrupt("the file is truncated: it has %d bytes, for %d of header and %d of data", fileSize, h.dataOff, size)
	case size > math.MaxInt-uint64(h.dataOff):
		return corrupt("the segment is larger than this machine can address")
	case key != "" && h.hash != keymap.Hash(key):
		return corrupt("the file was made for another key of the same name")
	}
	return shape{int(h.dataOff), int(h.slots), int(size), h.id, h.created, lockfile.Kind(h.locks), h.hash}, nil
}

// fresh returns the header that a creator writes. Zeros follow it.
func (s *shape) fresh(key string) []byte {
	b, h := headerBuffer(slotsOff)
	h.magic = magic
	h.order = byteOrder
	h.format = formatVersion
	h.dataOff = uint32(s.dataOff)
	h.slots = uint32(s.slots)
	h.id = s.id
	h.created = s.created
	h.pid = pid
	h.uid = uint32(max(os.Geteuid(), 0))
	h.locks = uint32(s.locks)
	h.keyLen = uint32(min(uint64(len(key)), math.MaxUint32))
	h.hash = s.hash
	h.size.Store(uint64(s.size))
	copy(h.key[:], key)
	return b
}

// storedKey returns as much of the key as the header holds.
func (h *header) storedKey() string {
	return string(h.key[:min(h.keyLen, maxStoredKey)])
}

// contents is what a file turns out to be.
type contents struct {
	shape
	info fs.FileInfo
	file lockfile.ID
	half bool // half-made: its creator has died before it was a segment, or is at work
	live bool // its state is live
}

// readContents reads the header of a file that may be anything, without its first
// byte: see magic. It asks for the size of the file after that, because a creator
// gives the file its size before it makes the segment live.
func readContents(file *os.File, key string) (c contents, err error) {
	b, h := headerBuffer(slotsOff)
	n, readErr := file.ReadAt(b[1:], 1)
	if c.info, c.file, err = lockfile.Stat(file); err != nil {
		return c, err
	}
	if readErr == io.EOF && int64(n+1) < min(int64(len(b)), c.info.Size()) {
		return readContents(file, key) // its creator has written the header since
	}
	switch {
	case !c.info.Mode().IsRegular():
		return c, lockfile.ErrNotRegular
	case readErr != nil && readErr != io.EOF:
		return c, readErr
	}
	if n+1 >= slotsOff && h.magic == magic && h.order == byteOrder && h.format == formatVersion && h.state.Load() == stateMaking {
		c.half = true
		return c, nil
	}
	c.live = h.state.Load() == stateLive
	if c.half, err = zeros(file, c.info.Size()); c.half || err != nil {
		return c, err
	}
	c.shape, err = readShape(h, key, c.info.Size())
	return c, err
}

// zeros reports whether a file is empty, or no longer than a header and all zero.
// A longer file of zeros may be another program's.
func zeros(file *os.File, size int64) (bool, error) {
	if size == 0 || size == 1 || size > minHeader {
		return size == 0, nil // the only byte of one is not read
	}
	b := make([]byte, size-1)
	n, err := file.ReadAt(b, 1)
	if err == io.EOF {
		err = nil
	}
	return len(bytes.TrimLeft(b[:n], "\x00")) == 0, err
}

// pid is this process's number; os.Getpid is a system call.
var pid = uint32(os.Getpid())

var nativeBigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1
