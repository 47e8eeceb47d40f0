package shm

import (
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"runtime/debug"
)

// How often a snapshot tries without the lock; a long copy in vain counts for
// several. A reader that misses so often would go on missing: the writer is
// faster than it, or does not run.
const (
	snapshotTries = 32
	longCopy      = 4096
	longCopyTries = 8
)

// Snapshot copies the data to dst as they were at one moment, without taking the
// lock: readers never stop a writer. It returns how many bytes it has copied, the
// shorter of dst and the segment, and the version they belong to, for Wait.
//
// If a writer is faster than the copy several times, or holds the lock, Snapshot
// waits for its turn with the lock.
//
// While this attachment itself holds the lock, Snapshot waits for its unlock: who
// has the lock copies from Data.
//
// Errors: ErrDetached. ErrAbandoned if the last writer died inside the lock: then
// dst holds what stands there, which may be half-written. ErrCorrupt if the memory
// is gone, because somebody has truncated the file; ErrNoSpace if there is no room
// for a part of a Sparse segment that was never written.
func (s *Segment) Snapshot(dst []byte) (n int, version uint32, err error) {
	if !s.enter() {
		return 0, 0, fail("snapshot", s.key, ErrDetached)
	}
	defer s.done("snapshot", debug.SetPanicOnFault(true), &err)
	return s.snapshot("snapshot", dst, s.data)
}

// snapshot copies from src, which is a part of the data.
//
// This is a seqlock (Lameter 2005; Boehm, "Can seqlocks get along with
// programming language memory models?", 2012) whose counter is the lock word:
// if nobody owned it before the copy, and nobody does after it, and the version
// is the same, then nobody has written in between.
func (s *Segment) snapshot(op string, dst, src []byte) (int, uint32, error) {
	n := min(len(dst), len(src))
	h := s.head
	for try := 0; try < snapshotTries; try++ {
		stepBack(try)
		w := h.word.Load()
		if w&abandonedBit != 0 {
			break
		}
		if owner(w) == 0 {
			copyShared(dst[:n], src)
			if now := h.word.Load(); owner(now) == 0 && version(now) == version(w) {
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

// copyShared copies from memory that somebody may be writing to. Where loads may
// be delayed beyond the look at the word that follows, only atomic ones keep the
// order, and without it that look proves nothing.
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
