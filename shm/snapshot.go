package shm

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
)

// Reading without the lock.

// How often a snapshot tries without the lock; a long copy in vain counts for
// several. A reader that has missed so often would go on missing: the writer is
// faster, or does not run.
const (
	snapshotTries = 32
	longCopy      = 4096
	longCopyTries = 8
)

// Snapshot copies the data to dst as they were at one moment, without taking the
// lock: readers never stop a writer. It returns how many bytes it has copied, the
// shorter of dst and the data, and the version they belong to, for Wait.
//
// If a writer is faster than the copy several times, or holds the lock, Snapshot
// waits for its turn with the lock. While this attachment itself holds the lock,
// Snapshot waits for its unlock: the owner of the lock copies from Data.
//
// Errors: ErrDetached. ErrAbandoned if the last writer died while it held the
// lock: dst holds the data as they are, which may be half-written. ErrCorrupt if
// the memory is missing because another program has truncated the file; ErrNoSpace
// if there is no room for a part of a Sparse segment that was never written.
func (s *Segment) Snapshot(dst []byte) (n int, version uint32, err error) {
	if !s.enter() {
		return 0, 0, fail("snapshot", s.key, ErrDetached)
	}
	defer s.finishCall("snapshot", debug.SetPanicOnFault(true), &err)
	data, err := s.data()
	if err != nil {
		return 0, 0, fail("snapshot", s.key, err)
	}
	return s.snapshot("snapshot", dst, data)
}

// ReadAt reads from off into p as Snapshot does: all that it returns was there at
// one moment. It implements io.ReaderAt, and reports io.EOF where p reaches beyond
// the end.
//
// Errors: ErrSize; ErrDetached, ErrAbandoned, ErrCorrupt and ErrNoSpace as Snapshot.
func (s *Segment) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fail("read", s.key, fmt.Errorf("%w: offset %d", ErrSize, off))
	}
	if !s.enter() {
		return 0, fail("read", s.key, ErrDetached)
	}
	defer s.finishCall("read", debug.SetPanicOnFault(true), &err)
	data, err := s.data()
	if err != nil {
		return 0, fail("read", s.key, err)
	}
	if off >= int64(len(data)) {
		return 0, io.EOF
	}
	n, _, err = s.snapshot("read", p, data[off:])
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

// Load returns the value of type T at offset off, as it was at one moment, without
// taking the lock: it is a Snapshot of one value. The offset may be any.
//
// Errors: ErrType if T holds pointers or has no size, ErrSize if the value reaches
// beyond the segment; ErrDetached, ErrAbandoned (with the value as it is),
// ErrCorrupt and ErrNoSpace as Snapshot.
func Load[T any](s *Segment, off int) (v T, err error) {
	if err := checkType[T](); err != nil {
		return v, fail("load", s.key, err)
	}
	if !s.enter() {
		return v, fail("load", s.key, ErrDetached)
	}
	defer s.finishCall("load", debug.SetPanicOnFault(true), &err)
	data, err := s.data()
	if err == nil {
		err = checkRange[T](data, off, 1)
	}
	if err != nil {
		return v, fail("load", s.key, err)
	}
	_, _, err = s.snapshot("load", bytesOf(&v), data[off:])
	return v, err
}

// snapshot copies from src, which is a part of the data.
//
// This is a seqlock (Lameter 2005; Boehm, "Can seqlocks get along with programming
// language memory models?", 2012) whose counter is the lock word: if the lock was
// free before the copy and is free after it, and the version is the same, then no
// process has written in between.
func (s *Segment) snapshot(op string, dst, src []byte) (int, uint32, error) {
	n := min(len(dst), len(src))
	h := s.head
	for try := 0; try < snapshotTries; try++ {
		backoff(try)
		w := h.word.Load()
		if w&abandonedBit != 0 {
			break
		}
		if w&ownerMask == 0 {
			copyShared(dst[:n], src)
			if now := h.word.Load(); now&ownerMask == 0 && version(now) == version(w) {
				return n, version(w), nil
			}
			if n > longCopy {
				try += longCopyTries - 1
			}
		}
	}
	if !s.tryFast() {
		if err := s.lockSlow(context.Background(), op); err != nil {
			return 0, 0, err
		}
	}
	defer s.unlock(false, false)
	copyShared(dst[:n], src)
	w := h.word.Load()
	if w&abandonedBit != 0 {
		return n, version(w), fail(op, s.key, fmt.Errorf("%w; lock the segment, repair the data, and unlock it", ErrAbandoned))
	}
	return n, version(w), nil
}

// loadsInOrder: these processors do not move a load before an earlier one.
const loadsInOrder = runtime.GOARCH == "amd64" || runtime.GOARCH == "386" || runtime.GOARCH == "s390x"

// copyShared copies from memory that another process may be writing to. Where
// loads may be delayed beyond the look at the word that follows, only atomic ones
// keep the order, and without it that look proves nothing.
func copyShared(dst, src []byte) {
	if loadsInOrder {
		copy(dst, src)
		return
	}
	words, begin := wordsAround(src[:min(len(dst), len(src))])
	var word [4]byte
	for i := range words {
		binary.NativeEndian.PutUint32(word[:], words[i].Load())
		dst = dst[copy(dst, word[begin:]):]
		begin = 0
	}
}
