package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"qshm/shm"
	"qshm/shm/internal/failpoint"
)

// A Stream is a process's end of a stream: it sends, or subscribes, or both. Its
// methods may be called by several goroutines at once.
type Stream struct {
	seg  *shm.Segment
	key  string
	id   uint64 // of the attachment
	ring *ring

	section section // calls that touch the memory
	at      place   // where the next message goes; the lock guards it
	touched uint64  // cache lines before it are this processor's; the lock guards it
	serial  uint64  // of the last reservation; the lock guards it

	reserved atomic.Uint64 // the serial of the reservation that is open; 0: none
	writer   atomic.Int32  // the index in writers, plus 1; 0: not a writer

	mu   sync.Mutex // guards subs
	subs map[*Subscription]struct{}
}

// Open attaches to the stream of key, or creates it with a ring of capacity bytes,
// rounded up to a multiple of 8, if no live process has it open. The capacity of a
// stream that exists may be another: see Capacity. The options are those of shm.Open;
// Init is the stream's own.
//
// A message takes its length, rounded up to a multiple of 8, and 8 bytes more, and at
// most half the ring. The ring holds what readers have not read yet, and goes on
// holding older messages for readers with FromOldest until the space is needed.
//
// Errors: ErrNotStream; shm.ErrSize if the capacity is less than 64 bytes or more
// than 8 GiB; shm.ErrReadOnly; those of shm.Open.
func Open(key string, capacity int, opts ...shm.Option) (*Stream, error) {
	if capacity < minCapacity || uint64(capacity) > maxCapacity {
		return nil, fail("open", key, fmt.Errorf("%w: a ring of %d bytes; it has %d at least and 8 GiB at most", shm.ErrSize, capacity, minCapacity))
	}
	capacity = (capacity + 7) &^ 7
	opts = append(opts[:len(opts):len(opts)], shm.Init(func(data []byte) error {
		initialise(data, capacity)
		return nil
	}))
	seg, _, err := shm.Open(key, ringOff+capacity, opts...)
	if err != nil {
		return nil, fail("open", key, err)
	}
	s, err := open(seg)
	if err != nil {
		seg.Close()
		return nil, fail("open", key, err)
	}
	return s, nil
}

func open(seg *shm.Segment) (*Stream, error) {
	if seg.ReadOnly() {
		return nil, fmt.Errorf("%w; readers write where they are", shm.ErrReadOnly)
	}
	r, err := newRing(seg)
	if err != nil {
		return nil, err
	}
	return &Stream{seg: seg, key: seg.Key(), id: seg.ID(), ring: r, subs: map[*Subscription]struct{}{}}, nil
}

// Key returns the key of the stream.
func (s *Stream) Key() string { return s.key }

// ID returns the ID of this attachment, which is that of its readers in Info. It is 0
// once closed.
func (s *Stream) ID() uint64 { return s.seg.ID() }

// Capacity returns the size of the ring in bytes.
func (s *Stream) Capacity() int { return int(s.ring.capacity) }

// MaxMessage returns the length of the longest message.
func (s *Stream) MaxMessage() int { return s.ring.maxMessage() }

// Close ends the stream for this process: its subscriptions end, and readers learn
// that this writer has closed. A message that is reserved is not sent. Calls in
// progress end with ErrClosed. What Next and Reserve have returned must not be used
// any more. A second Close reports nil.
//
// With the last Close of all processes, the stream is destroyed.
func (s *Stream) Close() error {
	if !s.section.close() {
		return nil
	}
	s.mu.Lock()
	subs := s.subs
	s.subs = nil
	s.mu.Unlock()
	for sub := range subs {
		sub.close()
	}
	s.closeWriter()
	if err := s.seg.Detach(); err != nil && !errors.Is(err, shm.ErrDetached) {
		return fail("close", s.key, err)
	}
	return nil
}

// closeWriter ends being a writer.
func (s *Stream) closeWriter() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { recover() }() // the file was truncated: no reader learns of it
	if i := s.writer.Swap(0); i > 0 {
		s.ring.writers[i-1].CompareAndSwap(s.id, 0)
		s.seg.Notify() // a reader that waits may have read everything
	}
}

// becomeWriter makes this process known as a writer. The caller holds the lock.
func (s *Stream) becomeWriter() error {
	if s.writer.Load() > 0 {
		return nil
	}
	own := 0
	for ; own < maxWriters; own++ {
		if id := s.ring.writers[own].Load(); id == 0 || !s.seg.Alive(id) {
			break
		}
	}
	if own == maxWriters {
		return fmt.Errorf("%w: a stream has at most %d writers", shm.ErrNoSpace, maxWriters)
	}
	s.ring.writers[own].Store(s.id) // before it counts: if it dies in between, readers learn that
	failpoint.At("stream_writer")
	s.ring.opened.Add(1)
	s.writer.Store(int32(own) + 1)
	// The entries of dead writers are cleared last: a reader that found no entry would
	// take all writers for closed.
	for i := own + 1; i < maxWriters; i++ {
		if id := s.ring.writers[i].Load(); id != 0 && !s.seg.Alive(id) {
			s.ring.writers[i].CompareAndSwap(id, 0)
		}
	}
	return nil
}

// section counts the calls that touch the memory, so that Close does not unmap it
// under them. Calls that wait are not counted: closing the segment ends them.
type section struct{ calls atomic.Int64 }

const sectionClosed = 1 << 40

func (s *section) enter() bool {
	if s.calls.Add(1) < sectionClosed {
		return true
	}
	s.calls.Add(-1)
	return false
}

// reenter is enter for a call that must leave in any case.
func (s *section) reenter() bool { return s.calls.Add(1) < sectionClosed }

func (s *section) leave() { s.calls.Add(-1) }

// blocking calls fn, which waits, outside the section, so that Close can end it.
func (s *section) blocking(fn func() error) error {
	s.leave()
	err := fn()
	if !s.reenter() {
		return ErrClosed
	}
	return err
}

// close refuses calls from now on, and waits for those in the section. It reports
// whether it was the first.
func (s *section) close() bool {
	if s.calls.Or(sectionClosed)&sectionClosed != 0 {
		return false
	}
	for s.calls.Load() != sectionClosed {
		runtime.Gosched()
	}
	return true
}

// Waiting.

// A waiter looks whether the processes that it waits for are alive: at first after
// firstLook, later after a quarter of the time that it has waited, lastLook at most.
const (
	firstLook = 25 * time.Millisecond
	lastLook  = 2 * time.Second
)

// slice is a context that ends at a time of its own, if the other does not end first.
type slice struct {
	context.Context
	start, until time.Time
}

func newSlice(ctx context.Context) slice {
	now := time.Now()
	return slice{ctx, now, now.Add(firstLook)}
}

// next begins the next slice.
func (c *slice) next() {
	now := time.Now()
	c.until = now.Add(min(max(now.Sub(c.start)/4, firstLook), lastLook))
}

func (c *slice) Deadline() (time.Time, bool) {
	if d, ok := c.Context.Deadline(); ok && d.Before(c.until) {
		return d, true
	}
	return c.until, true
}

func (c *slice) Err() error {
	if err := c.Context.Err(); err != nil {
		return err
	}
	if !time.Now().Before(c.until) {
		return context.DeadlineExceeded
	}
	return nil
}

// over reports whether err means only that the slice has ended, and begins the next.
func (c *slice) over(err error) bool {
	if c.Context.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	if d, ok := c.Context.Deadline(); ok && !time.Now().Before(d) {
		return false
	}
	c.next()
	return true
}
