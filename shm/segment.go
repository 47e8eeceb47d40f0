package shm

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync/atomic"
)

// This file is what a caller holds: one attachment to a segment, and when it
// ends.

// A Segment is an attachment to memory that several processes share. All methods
// may be called by several goroutines at once.
//
// Where Detach meets calls in progress, they finish, and the last of them ends the
// attachment; nothing faults. That does not extend to the slices that Data has
// handed out: they must not be used once Detach was called.
type Segment struct {
	m    *mapping
	head *header // of m

	// Calls in progress, counted in twos, and whether Detach was called.
	calls atomic.Int64
	ended atomic.Bool // the attachment was given back

	a        *attachment
	key      string
	readOnly bool
	data     []byte
}

const (
	callsDetached = 1
	callsOne      = 2
)

func newSegment(p *place, a *attachment, data []byte) *Segment {
	return &Segment{m: a.m, head: a.m.head, a: a, key: p.key, readOnly: p.readOnly, data: data}
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

// Attach attaches to the segment that exists under key.
//
// A second attachment in one process shares the mapping.
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

// Detach ends the attachment: it unmaps the memory, and with the last attachment
// of a living process destroys the segment. A second Detach reports ErrDetached.
//
// Detach does not wait for calls in progress; the last of them completes it. A
// program that ends should wait for its goroutines first, or others find the
// attachment of a dead process.
func (s *Segment) Detach() error {
	if !s.enter() {
		return fail("detach", s.key, ErrDetached)
	}
	before := s.calls.Or(callsDetached)
	if before&callsDetached != 0 {
		s.leave()
		return fail("detach", s.key, ErrDetached)
	}
	return s.leave()
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
	if err := s.a.end(false); err != nil {
		return fail("detach", s.key, err)
	}
	return nil
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
// the same time must be read and written by atomic operations. Writing to a
// read-only attachment's data, or using the slice after Detach, faults.
func (s *Segment) Data() []byte {
	if s.detached() {
		return nil
	}
	return s.data
}

func randomID() (uint64, error) {
	var b [8]byte
	_, err := rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:]), err
}
