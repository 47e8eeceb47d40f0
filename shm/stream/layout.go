package stream

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"

	"qshm/shm"
)

// What is in the segment: a header, then the ring. FORMAT.md describes it for other
// languages.
//
// Positions count the bytes that were ever written to the ring; a position modulo
// the capacity is an offset in the ring. They are multiples of 8.

// header is the beginning of the data. The creator writes the first fields before
// any other process can attach. A writer writes tail, last, sent, head and floor with
// the segment's lock held.
type header struct {
	magic    [8]byte
	version  uint32
	ringOff  uint32 // where the ring begins
	capacity uint64 // of the ring, in bytes
	_        [40]byte

	tail atomic.Uint64 // the end of the newest message: a message counts from then on
	last atomic.Uint64 // where a message begins, not far before the newest one
	sent uint64        // how many messages were sent
	_    [40]byte

	head  atomic.Uint64 // the oldest record that is still there
	floor atomic.Uint64 // no reader that holds up writers was behind it when a writer looked
	_     [48]byte

	wanted atomic.Uint64 // a writer waits for the readers to come to wanted-1; 0: none waits
	_      [56]byte

	opened atomic.Uint64 // how many writers there ever were
	_      [56]byte

	writers [maxWriters]atomic.Uint64 // the attachments that write
	groups  [maxGroups]group
	cursors [maxReaders]cursor
}

// cursor is where a reader is. Its owner alone writes it, except that anybody may
// clear the owner if that has died.
type cursor struct {
	owner atomic.Uint64 // the attachment of the reader; 0: the cursor is free
	pos   atomic.Uint64 // everything before it was read; of a member of a group, see memberWord
	mode  atomic.Uint32 // modeAll, …, or modeGroup + the index of the group
	pid   atomic.Uint32 // for people
	_     [104]byte
}

const (
	modeAll   = 1 // every message
	modeNew   = 2 // Latest
	modeGroup = 16
)

// group is what the members of a group share.
//
// The word is the position of the next message to take, divided by 8, and in the low
// 8 bits the index of the cursor of the member that took the one before. A member takes
// a message in three steps: it writes the position to its cursor, marked tentative; it
// swaps the word; it marks its cursor held. If it dies in between, the word says
// whether it has taken the message; the next member to take one first marks the cursor
// for it. A cursor that is held and whose owner has died is a message to deliver again.
type group struct {
	used    atomic.Uint32
	idle    atomic.Uint32 // no member was alive: the group holds nobody up
	word    atomic.Uint64
	nameLen uint32
	moves   atomic.Uint32 // counts members that have gone over to another cursor
	name    [maxGroupName]byte
	_       [40]byte
}

const noCursor = 0xff

func groupWord(pos uint64, cursor int) uint64 { return pos>>3<<8 | uint64(cursor) }
func groupPos(w uint64) uint64                { return w >> 8 << 3 }

// The cursor of a member: the position of the message that it takes or holds, the
// index of the group in the highest bits, and the mark in the lowest. 0: no message.
// The group is there for confirm, which may be late.
const (
	tentative = 1
	held      = 2
	flags     = 7
	groupBit  = 60
)

func memberWord(pos uint64, group int, mark uint64) uint64 {
	return uint64(group)<<groupBit | pos | mark
}
func memberPos(v uint64) uint64 { return v & (1<<groupBit - 1) &^ flags }

// A record is a word, and the message. The low half of the word is the length of the
// message; the high half counts messages. Records do not wrap around the end of the
// ring: padding fills what is left there.
const (
	recordHeader = 8
	padding      = 1<<32 - 1 // as a length

	formatVersion = 1
	ringOff       = 12 << 10
	maxWriters    = 64
	maxReaders    = 64
	maxGroups     = 16
	maxGroupName  = 64
	minCapacity   = 64
	maxCapacity   = 1 << 33 // so that a length fits 32 bits
)

var magic = [8]byte{'q', 's', 'h', 'm', 's', 't', 'r', 'm'}

// initialise writes the header of a new stream.
func initialise(data []byte, capacity int) {
	copy(data, magic[:])
	binary.NativeEndian.PutUint32(data[8:], formatVersion)
	binary.NativeEndian.PutUint32(data[12:], ringOff)
	binary.NativeEndian.PutUint64(data[16:], uint64(capacity))
}

func recordSize(n int) uint64 { return recordHeader + (uint64(n)+7)&^7 }

// ring is the mapped stream.
type ring struct {
	*header
	words    []atomic.Uint64 // the ring
	bytes    []byte          // the same memory
	capacity uint64
}

// newRing finds the header and the ring in a segment.
func newRing(seg *shm.Segment) (*ring, error) {
	size := seg.Size()
	if size < ringOff+minCapacity {
		return nil, fmt.Errorf("%w: it has %d bytes", ErrNotStream, size)
	}
	h, err := shm.Value[header](seg, 0)
	if err != nil {
		return nil, err
	}
	capacity := h.capacity // once: another program may change it
	switch {
	case h.magic != magic:
		return nil, fmt.Errorf("%w: another program made it", ErrNotStream)
	case h.version != formatVersion:
		return nil, fmt.Errorf("%w that this version knows: it has version %d, and this is %d", ErrNotStream, h.version, formatVersion)
	case h.ringOff != ringOff || capacity%8 != 0 || capacity < minCapacity || capacity > min(maxCapacity, uint64(size-ringOff)):
		return nil, fmt.Errorf("%w: its header contradicts itself", ErrNotStream)
	}
	words, err := shm.Slice[atomic.Uint64](seg, ringOff, int(capacity/8))
	if err != nil {
		return nil, err
	}
	return &ring{h, words, seg.Data()[ringOff : ringOff+int(capacity)], capacity}, nil
}

// maxMessage is the longest message: a record takes at most half the ring.
func (r *ring) maxMessage() int { return int(r.capacity/2&^7) - recordHeader }

// record is a record in the ring.
type record struct {
	pos, end uint64 // its position, and that of the next one
	off      uint64 // where it is in the ring
	length   int    // of the message; -1: padding
	number   uint32 // of the message
}

// at reads the record at pos, which lies before tail. It reports false if there can be
// none of that length: another process has overwritten it, or the ring is corrupt.
func (r *ring) at(pos, tail uint64) (record, bool) {
	left := tail - pos
	if left == 0 || left > r.capacity || pos%8 != 0 {
		return record{}, false
	}
	off := pos % r.capacity
	w := r.words[off/8].Load()
	rec := record{pos: pos, off: off, length: int(uint32(w)), number: uint32(w >> 32)}
	size := r.capacity - off
	if uint32(w) == padding {
		rec.length = -1
	} else if rec.length < 0 || rec.length > r.maxMessage() || recordSize(rec.length) > size {
		return record{}, false
	} else {
		size = recordSize(rec.length)
	}
	rec.end = pos + size
	return rec, size <= left
}

// set writes the word of a record at an offset. It counts when tail says so.
func (r *ring) set(off uint64, number, length uint32) {
	binary.NativeEndian.PutUint64(r.bytes[off:], uint64(number)<<32|uint64(length))
}

// message returns the bytes of a record.
func (r *ring) message(rec *record) []byte {
	off := rec.off + recordHeader
	return r.bytes[off : off+uint64(rec.length) : off+uint64(rec.length)]
}

// ends returns the oldest position and the end of the newest message.
func (r *ring) ends() (head, tail uint64, err error) {
	head = r.head.Load() // first: it never overtakes tail
	if tail = r.tail.Load(); tail-head > r.capacity && r.head.Load() == head || (tail|head)%8 != 0 {
		return 0, 0, errCorruptRing
	}
	return head, tail, nil
}

// Small messages are as fast as the processors hand their cache lines to each other,
// which takes longer than everything else about them. One after the other, it would
// take that time for each: so a writer and a reader touch the next lines together. Of
// a large message, the reader may not need all lines, and the writer would wait for
// those that the reader has.
const (
	cacheLine   = 64
	linesOnce   = 16
	smallRecord = linesOnce * cacheLine / 2
)

// touch loads the cache lines from pos on, up to end, or makes them this processor's
// to write if write is set. They may wrap around; nothing there counts if write is
// set. It returns how far it got.
func (r *ring) touch(pos, end uint64, write bool) uint64 {
	pos = (pos + cacheLine - 1) &^ (cacheLine - 1)
	off := pos % r.capacity
	for n := 0; n < linesOnce && pos+cacheLine <= end && off+cacheLine <= r.capacity; n++ {
		if write {
			binary.NativeEndian.PutUint64(r.bytes[off:], 0)
		} else {
			r.words[off/8].Load()
		}
		pos, off = pos+cacheLine, off+cacheLine
	}
	return pos
}

// copyMessage copies a message that a writer may be overwriting: what was copied
// counts only if the oldest position has not passed it.
func (r *ring) copyMessage(dst []byte, rec *record) []byte {
	n := (rec.length + 7) / 8 * 8
	if cap(dst) < n {
		dst = make([]byte, max(n, 2*cap(dst)))
	}
	dst = dst[:n]
	copyWords(dst, r.words[(rec.off+recordHeader)/8:], r.message(rec))
	return dst[:rec.length]
}
