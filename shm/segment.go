package shm

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
)

// A Segment is an attachment to memory that several processes share. All methods
// may be called by several goroutines at once.
//
// If Detach meets calls in progress, those that wait end with ErrDetached, the
// others finish, and the last of them ends the attachment; nothing faults. That
// does not extend to the slices and pointers that Data, Value and Slice have handed
// out: they must not be used once Detach was called.
//
// A Segment that the program loses without Detach stays attached until the process
// ends.
type Segment struct {
	m     *mapping
	head  *header                 // of m
	view  *atomic.Pointer[[]byte] // of m: the data, as mapped for this kind of attachment
	owner uint64                  // the lock word's owner bits when this attachment has the lock
	step  uint64                  // what an unlock adds to the word: one version, or none if read-only

	// lastAcquired is the word as this attachment has taken it last, if it was free:
	// Unlock tries it first. It may be out of date.
	lastAcquired uint64

	// Calls in progress, counted in twos, and whether Detach was called. An
	// uncontended Lock and Unlock are not counted: see headerOutlivesDetach.
	calls atomic.Int64
	ended atomic.Bool // the slot was given back

	slot       int
	key        string
	readOnly   bool
	replaced   *Info
	detachedCh chan struct{} // closed by Detach

	watching sync.Mutex // guards watches
	watches  map[<-chan struct{}]*watch
}

const (
	callsDetached = 1
	callsOne      = 2
)

func newSegment(t *target, m *mapping, slot int) *Segment {
	s := &Segment{
		m: m, head: m.head, view: &m.rw, owner: ownerBits(slot), step: versionOne,
		slot: slot, key: t.key, readOnly: t.readOnly, detachedCh: make(chan struct{}),
	}
	if t.readOnly {
		s.view, s.step = &m.ro, 0
	}
	return s
}

// Create makes a segment of size bytes, all zero, under key, and attaches to it. If
// every process that was attached to a former segment has died, Create destroys
// that first: see Replaced.
//
// Any string is a key. The memory is allocated at once, unless Sparse says
// otherwise: if it is not available, Create fails, and no access faults later. Init
// initialises the memory before any other process can attach.
//
// Errors: ErrKey, ErrSize, ErrExist if a live process is attached to a segment of
// that key, ErrNoSpace, ErrPermission, ErrCorrupt, ErrBusy; errors.ErrUnsupported
// where the system has no file locks.
func Create(key string, size int, opts ...Option) (*Segment, error) {
	t, err := locate("create", key, opts, true)
	if err != nil {
		return nil, err
	}
	seg, _, err := t.open(size, true, false)
	return seg, err
}

// Attach attaches to the segment that exists under key. It does not wait for the
// segment's lock.
//
// A second attachment in one process shares the mapping, and excludes the first
// from the lock as another process would.
//
// Errors: ErrKey, ErrNotExist, ErrNoSpace if all attachments are taken,
// ErrPermission, ErrCorrupt, ErrBusy; errors.ErrUnsupported if the segment was
// made with a kind of locks that this system does not have.
func Attach(key string, opts ...Option) (*Segment, error) {
	t, err := locate("attach", key, opts, false)
	if err != nil {
		return nil, err
	}
	seg, _, err := t.open(0, false, true)
	return seg, err
}

// Open attaches to the segment under key, or creates it with size bytes if no live
// process is attached to one. Of many processes that call Open at once, exactly one
// creates. The size of a segment that exists may be another: see Size and Grow.
//
// Errors: those of Create and Attach, except ErrExist and ErrNotExist.
func Open(key string, size int, opts ...Option) (seg *Segment, created bool, err error) {
	t, err := locate("open", key, opts, true)
	if err != nil {
		return nil, false, err
	}
	return t.open(size, true, true)
}

// Replaced returns what the Create or Open that made this Segment found left by
// dead processes, and destroyed. Its Abandoned tells that a process died while it
// held the lock.
func (s *Segment) Replaced() (Info, bool) {
	if s.replaced == nil {
		return Info{}, false
	}
	return *s.replaced, true
}

// Detach ends the attachment: it releases the lock if this attachment holds it,
// unmaps the memory, and with the last attachment of a live process destroys the
// segment. A second Detach reports ErrDetached.
//
// Detach does not wait for calls in progress, so that View and Update may call it;
// the last of them completes it. A program that ends should wait for its
// goroutines first, or other processes find the attachment of a dead process.
//
// Errors: ErrDetached. ErrPermission if this process may not remove the file: then
// it is garbage, and the next Create or Attach removes it.
func (s *Segment) Detach() error {
	// Detach counts itself in, so that the calls at work cannot end the attachment
	// while it wakes them.
	if !s.enter() {
		return fail("detach", s.key, ErrDetached)
	}
	before := s.calls.Or(callsDetached)
	if before&callsDetached != 0 {
		s.leave()
		return fail("detach", s.key, ErrDetached)
	}
	close(s.detachedCh)
	if before != callsOne {
		s.m.interrupt() // the last call at work ends the attachment
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

// leave counts a call out. After Detach, the last one ends the attachment.
func (s *Segment) leave() error {
	if s.calls.Add(-callsOne) == callsDetached {
		return s.end()
	}
	return nil
}

// end gives the slot back, once.
func (s *Segment) end() error {
	if s.ended.Swap(true) {
		return nil
	}
	s.unwatchAll()
	s.releaseLast()
	if err := s.m.detach(s.slot); err != nil {
		return fail("detach", s.key, err)
	}
	return nil
}

// Key returns the key of the segment.
func (s *Segment) Key() string { return s.key }

// Size returns the number of bytes of the data, exactly: what Create was asked for,
// or what Grow has made of it since. It is 0 once detached.
func (s *Segment) Size() int { return len(s.Data()) }

// ReadOnly reports whether the data are mapped read-only.
func (s *Segment) ReadOnly() bool { return s.readOnly }

// Attached reports whether Detach has not been called yet.
func (s *Segment) Attached() bool { return !s.detached() }

// Data returns the memory itself, as large as it is now; nil once detached. It
// begins on a page boundary, so any type is aligned at offset 0. Memory that other
// processes may write at the same time must be read and written with the lock held,
// or by atomic operations. Writing to a read-only attachment's data, or using the
// slice after Detach, faults.
//
// So does using memory that is missing: if another program truncates the file, or a
// Sparse segment finds no room. No user of this package truncates. ReadAt, WriteAt,
// Snapshot, Load, Store, View, Update and UpdateWhen report it as an error. If the
// file was truncated to nothing, the header is missing too, and Lock, LockContext,
// TryLock, Unlock, Abandoned, Version, Changes, Data and Size fault, except calls
// that wait.
func (s *Segment) Data() []byte {
	if headerOutlivesDetach && !s.detached() {
		data := *s.view.Load()
		same := uint64(len(data)) == s.head.size.Load()
		runtime.KeepAlive(s.m)
		if same {
			return data
		}
	}
	if !s.enter() {
		return nil
	}
	defer s.leave()
	data, err := s.guardedData()
	if err != nil {
		return *s.view.Load() // as it was
	}
	return data
}

// data returns the data as they are now, for a call that is counted in and turns
// faults into errors.
func (s *Segment) data() ([]byte, error) {
	data := *s.view.Load()
	if uint64(len(data)) == s.head.size.Load() {
		return data, nil
	}
	if _, err := s.m.view(s.readOnly); err != nil {
		return nil, err
	}
	return *s.view.Load(), nil
}

// guardedData is data for a call that does not turn faults into errors itself.
func (s *Segment) guardedData() (data []byte, err error) {
	defer s.m.reportFault(debug.SetPanicOnFault(true), &err)
	return s.data()
}

// View calls fn with the data while holding the lock. fn must not write: View does
// not move the version. It must not lock the segment, take a Snapshot or call
// anything else that may wait for the lock. View returns the error of fn as it is.
//
// If fn touches memory that is missing, it ends there as by a panic, and View
// reports ErrCorrupt, or ErrNoSpace if there is no room for a part of a Sparse
// segment that was never written: see Data. If fn writes though the attachment is
// read-only, View reports ErrReadOnly in the same way.
//
// Errors: ErrDetached, ErrReadOnly, ErrCorrupt, ErrNoSpace.
func (s *Segment) View(fn func(data []byte) error) error {
	write := false
	return s.locked(context.Background(), "view", &write, fn)
}

// Update calls fn with the data while holding the lock, and moves the version, also
// if fn fails. It returns the error of fn as it is. What View says of fn holds here
// too. If fn panics, the next owner of the lock finds it Abandoned.
//
// If fn touches memory that is missing, it ends there as by a panic, and Update
// reports ErrCorrupt, or ErrNoSpace if there is no room for a part of a Sparse
// segment that was never written: see Data.
//
// Errors: ErrDetached, ErrReadOnly, ErrCorrupt, ErrNoSpace.
func (s *Segment) Update(fn func(data []byte) error) error {
	if s.readOnly {
		return s.readOnlyError("update")
	}
	write := true
	return s.locked(context.Background(), "update", &write, fn)
}

// UpdateWhen waits until ready reports true, and then calls fn as Update does,
// without releasing the lock in between. It stands for a condition variable or a
// semaphore, and unlike those survives the death of any process.
//
// ready is called with the lock held, first at once and then after each change; it
// may be called any number of times and must not write. To look does not move the
// version, so processes that wait do not wake each other. Between the calls
// UpdateWhen sleeps. Abandoned tells both functions if the last writer died.
//
//	err := jobs.UpdateWhen(ctx,
//		func(data []byte) bool { return data[count] > 0 },
//		func(data []byte) error { data[count]--; … })
//
// Errors: those of Update, and the context's, at once when it ends.
func (s *Segment) UpdateWhen(ctx context.Context, ready func(data []byte) bool, fn func(data []byte) error) error {
	if s.readOnly {
		return s.readOnlyError("update")
	}
	if err := ctx.Err(); err != nil {
		return fail("update", s.key, err)
	}
	for {
		var looked uint32
		write := false
		err := s.locked(ctx, "update", &write, func(data []byte) error {
			if looked = version(s.head.word.Load()); !ready(data) {
				return nil
			}
			write = true
			return fn(data)
		})
		if write || err != nil {
			return err
		}
		if _, err := s.Wait(ctx, looked); err != nil {
			return fail("update", s.key, err)
		}
	}
}

// locked calls fn with the lock held. *write tells at the end, or when fn panics,
// whether fn may have written.
func (s *Segment) locked(ctx context.Context, op string, write *bool, fn func(data []byte) error) (err error) {
	if !s.enter() {
		return fail(op, s.key, ErrDetached)
	}
	defer s.finishCall(op, debug.SetPanicOnFault(true), &err)
	if !s.tryFast() {
		if err := s.lockSlow(ctx, op); err != nil {
			return err
		}
	}
	finished := false
	defer func() {
		if finished {
			s.unlock(*write, false)
		} else { // a fault here must not replace the panic of fn
			s.unlockBroken(*write)
		}
	}()
	data, err := s.data()
	if err != nil {
		*write, finished = false, true
		return fail(op, s.key, err)
	}
	err = fn(data)
	finished = true
	return err
}

func (s *Segment) unlockBroken(write bool) {
	defer s.m.ignoreFault(debug.SetPanicOnFault(true))
	s.unlock(write, write)
}

// WriteAt writes p at off while holding the lock; it implements io.WriterAt. If p
// does not fit, nothing is written. If memory is missing, an unknown part of p was
// written.
//
// Errors: ErrSize, ErrDetached, ErrReadOnly, ErrCorrupt and ErrNoSpace as Update.
func (s *Segment) WriteAt(p []byte, off int64) (n int, err error) {
	return s.write("write", p, off)
}

// Store writes v at offset off while holding the lock, and moves the version. The
// offset may be any.
//
// Errors: ErrType if T holds pointers or has no size; ErrSize, ErrDetached,
// ErrReadOnly, ErrCorrupt and ErrNoSpace as WriteAt.
func Store[T any](s *Segment, off int, v T) error {
	if err := checkType[T](); err != nil {
		return fail("store", s.key, err)
	}
	_, err := s.write("store", bytesOf(&v), int64(off))
	return err
}

func (s *Segment) write(op string, p []byte, off int64) (n int, err error) {
	if s.readOnly {
		return 0, s.readOnlyError(op)
	}
	write := false
	err = s.locked(context.Background(), op, &write, func(data []byte) error {
		if size := len(data); off < 0 || off > int64(size) || len(p) > size-int(off) {
			return fail(op, s.key, fmt.Errorf("%w: %d bytes at offset %d do not fit into %d", ErrSize, len(p), off, size))
		}
		write = true
		n = copy(data[off:], p)
		return nil
	})
	return n, err
}

func (s *Segment) readOnlyError(op string) error {
	return fail(op, s.key, fmt.Errorf("%w; attach without it to write", ErrReadOnly))
}

func (m *mapping) dir() string { return filepath.Dir(m.path) }
