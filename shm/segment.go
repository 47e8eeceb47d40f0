package shm

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// This file is what a caller holds: one attachment to a segment, and when it
// ends.

// A Segment is an attachment to memory that several processes share. All methods
// may be called by several goroutines at once.
//
// Where Detach meets calls in progress, those that wait end with ErrDetached,
// the others finish, and the last of them ends the attachment; nothing faults.
// That does not extend to the slices and pointers that Data, Value and Slice
// have handed out: they must not be used once Detach was called.
type Segment struct {
	m    *mapping
	head *header // of m
	mine uint64  // the owner's bits of the lock word when this attachment has it
	step uint64  // what an unlock adds to it: one version, or none if read-only
	held uint64  // the word as it was last taken, if it was free: a guess for Unlock, no more

	// Calls in progress, counted in twos, and whether Detach was called. The
	// uncontended lock is not counted, see tombs.
	calls atomic.Int64
	ended atomic.Bool // the attachment was given back

	a        *attachment
	key      string
	readOnly bool
	data     []byte
	gone     chan struct{} // closed by Detach

	watching sync.Mutex // guards watches
	watches  map[<-chan struct{}]*watch
}

const (
	callsDetached = 1
	callsOne      = 2
)

func newSegment(p *place, a *attachment, data []byte) *Segment {
	s := &Segment{
		m: a.m, head: a.m.head, mine: ownerBits(a.i, a.gen),
		a: a, key: p.key, readOnly: p.readOnly, data: data, gone: make(chan struct{}),
	}
	if !p.readOnly {
		s.step = versionOne
	}
	return s
}

// Create makes a segment of size bytes, all zero, under key, and attaches to it.
// If all who were attached to a former one have died, what they left behind is
// removed first.
//
// Any string is a key. The memory is allocated at once, unless Sparse says
// otherwise: if it is not there, Create fails with ErrNoSpace, and no access
// faults later.
//
// Errors: ErrKey, ErrSize, ErrExist if a process that is alive is attached to a
// segment of that key, ErrNoSpace, ErrPermission, ErrCorrupt.
func Create(key string, size int, opts ...Option) (*Segment, error) {
	p, err := locate("create", key, opts)
	if err != nil {
		return nil, err
	}
	seg, _, err := p.open(size, true, false)
	return seg, err
}

// Attach attaches to the segment that exists under key. It does not wait for the
// segment's lock, whoever holds it.
//
// A second attachment in one process shares the mapping, and excludes the first
// from the lock as another process would.
//
// Errors: ErrKey, ErrNotExist, ErrNoSpace if all attachments are taken,
// ErrPermission, ErrCorrupt.
func Attach(key string, opts ...Option) (*Segment, error) {
	p, err := locate("attach", key, opts)
	if err != nil {
		return nil, err
	}
	seg, _, err := p.open(0, false, true)
	return seg, err
}

// Open attaches to the segment under key, or creates it with size bytes if
// nobody has it. Of many who call Open at once, exactly one is told that it has
// created the segment. The size of one that exists may be another: see Size.
//
// Errors: those of Create and Attach, except ErrExist and ErrNotExist.
func Open(key string, size int, opts ...Option) (seg *Segment, created bool, err error) {
	p, err := locate("open", key, opts)
	if err != nil {
		return nil, false, err
	}
	return p.open(size, true, true)
}

// Detach ends the attachment: it releases the lock if this attachment holds it,
// unmaps the memory, and with the last attachment of a living process destroys
// the segment. A second Detach reports ErrDetached.
//
// Detach does not wait for calls in progress, so that it can be called from within
// View and Update; the last of them completes it. A program that ends should wait
// for its goroutines first, or others find the attachment of a dead process.
func (s *Segment) Detach() error {
	// Counted in first, so that those who are at work cannot end the attachment
	// while this is still waking them.
	if !s.enter() {
		return fail("detach", s.key, ErrDetached)
	}
	before := s.calls.Or(callsDetached)
	if before&callsDetached != 0 {
		s.leave()
		return fail("detach", s.key, ErrDetached)
	}
	close(s.gone)
	if before != callsOne {
		// Others are at work. Wake those who sleep; the last to leave ends.
		s.m.rouse()
	}
	return s.leave()
}

// rouse wakes all who sleep on the segment.
func (m *mapping) rouse() {
	defer m.survive(debug.SetPanicOnFault(true))
	wake(m.head.lockHalf(), everybody)
	m.alarm()
}

// Close is Detach for defer: a second one reports nil.
func (s *Segment) Close() error {
	if s.detached() {
		return nil
	}
	if err := s.Detach(); !errors.Is(err, ErrDetached) {
		return err
	}
	return nil
}

func (s *Segment) detached() bool { return s.calls.Load()&callsDetached != 0 }

// enter counts a call in. If it reports false, the attachment has ended, or is
// about to, and nothing of it may be touched.
func (s *Segment) enter() bool {
	if s.calls.Add(callsOne)&callsDetached == 0 {
		return true
	}
	s.leave()
	return false
}

// leave counts a call out. The last one out, after Detach, ends the attachment.
func (s *Segment) leave() error {
	if s.calls.Add(-callsOne) == callsDetached {
		return s.end()
	}
	return nil
}

// end gives the attachment back, once.
func (s *Segment) end() error {
	if s.ended.Swap(true) {
		return nil
	}
	s.unwatchAll()
	s.release(!s.readOnly, false) // if this attachment has the lock
	if err := s.a.end(false); err != nil {
		return fail("detach", s.key, err)
	}
	return nil
}

// release is unlock that survives a fault.
func (s *Segment) release(written, brokenOff bool) {
	defer s.m.survive(debug.SetPanicOnFault(true))
	s.unlock(written, brokenOff)
}

// Key returns the key of the segment.
func (s *Segment) Key() string { return s.key }

// Size returns the number of bytes that Create was asked for, exactly. It is 0
// once detached.
func (s *Segment) Size() int { return len(s.Data()) }

// ReadOnly reports whether the data are mapped read-only.
func (s *Segment) ReadOnly() bool { return s.readOnly }

// Attached reports whether Detach has not been called yet.
func (s *Segment) Attached() bool { return !s.detached() }

// Data returns the memory itself; nil once detached. What others may write at
// the same time must be read and written while holding the lock, or by atomic
// operations. Writing to a read-only attachment's data, or using the slice after
// Detach, faults.
//
// So does using data that are gone: if somebody truncates the file, or a Sparse
// segment finds no room. Nobody who shares memory by this package does either.
// ReadAt, WriteAt, Snapshot, View and Update report it as an error; who uses the
// slice in another way can have a panic instead of a crash by
// debug.SetPanicOnFault. If the file was cut down to nothing, the lock goes with
// it, and Lock, LockContext, TryLock, Unlock, Abandoned, Version and Changes fault
// too, but for those that are waiting.
func (s *Segment) Data() []byte {
	if s.detached() {
		return nil
	}
	return s.data
}

// View calls fn with the data while holding the lock. fn must not write: View
// does not move the version. It returns the error of fn as it is.
//
// If fn touches data that are not there any more, it ends at that point as by a
// panic, and View reports ErrCorrupt, or ErrNoSpace if there is no room for a part
// of a Sparse segment that was never written before: see Data. If it writes though
// the attachment is read-only, View reports ErrReadOnly in the same way.
//
// Errors: ErrDetached, ErrReadOnly, ErrCorrupt, ErrNoSpace.
func (s *Segment) View(fn func(data []byte) error) error {
	return s.locked("view", false, fn)
}

// Update calls fn with the data while holding the lock, and moves the version
// on, also if fn fails. It returns the error of fn as it is. If fn panics, the
// next to take the lock finds it Abandoned.
//
// If fn touches data that are not there, it ends at that point as by a panic, and
// Update reports ErrCorrupt, or ErrNoSpace if there is no room for a part of a
// Sparse segment that was never written before: see Data.
//
// Errors: ErrDetached, ErrReadOnly, ErrCorrupt, ErrNoSpace.
func (s *Segment) Update(fn func(data []byte) error) error {
	if s.readOnly {
		return fail("update", s.key, fmt.Errorf("%w; attach without it to write", ErrReadOnly))
	}
	return s.locked("update", true, fn)
}

// locked calls fn inside the lock.
func (s *Segment) locked(op string, write bool, fn func(data []byte) error) (err error) {
	if !s.enter() {
		return fail(op, s.key, ErrDetached)
	}
	defer s.done(op, debug.SetPanicOnFault(true), &err)
	if !s.tryFast() {
		if err := s.lockSlow(context.Background(), op); err != nil {
			return err
		}
	}
	finished := false
	defer func() {
		if finished {
			s.unlock(write, false)
		} else { // a fault here must not take the place of what fn ended with
			s.release(write, write)
		}
	}()
	err = fn(s.data)
	finished = true
	return err
}

// WriteAt writes p at off while holding the lock; it implements io.WriterAt.
// Nothing is written if p does not fit. If the memory is gone, there is no telling
// how much of p was written.
//
// Errors: ErrSize, ErrDetached, ErrReadOnly, ErrCorrupt and ErrNoSpace as Update.
func (s *Segment) WriteAt(p []byte, off int64) (n int, err error) {
	if s.readOnly {
		return 0, fail("write", s.key, fmt.Errorf("%w; attach without it to write", ErrReadOnly))
	}
	if size := len(s.data); off < 0 || off > int64(size) || len(p) > size-int(off) {
		return 0, fail("write", s.key, fmt.Errorf("%w: %d bytes at offset %d do not fit into %d", ErrSize, len(p), off, size))
	}
	err = s.locked("write", true, func(data []byte) error {
		n = copy(data[off:], p)
		return nil
	})
	return n, err
}

// ReadAt reads from off into p as Snapshot does: what it returns was all there
// at one moment. It implements io.ReaderAt, and reports io.EOF where p reaches
// beyond the end.
//
// Errors: ErrSize; ErrDetached, ErrAbandoned, ErrCorrupt and ErrNoSpace as Snapshot.
func (s *Segment) ReadAt(p []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fail("read", s.key, fmt.Errorf("%w: offset %d", ErrSize, off))
	}
	if !s.enter() {
		return 0, fail("read", s.key, ErrDetached)
	}
	defer s.done("read", debug.SetPanicOnFault(true), &err)
	if off >= int64(len(s.data)) {
		return 0, io.EOF
	}
	n, _, err = s.snapshot("read", p, s.data[off:])
	if err == nil && n < len(p) {
		err = io.EOF
	}
	return n, err
}

func randomID() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:]), err
}
