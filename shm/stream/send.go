package stream

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"

	"qshm/shm"
	"qshm/shm/internal/failpoint"
)

// Sending. The steps in brackets are those of test/models/stream.pml.
//
// One writer at a time: it holds the segment's lock from Reserve to Commit. It makes
// room by moving head past the oldest records, writes the message, and publishes it
// by the store of tail. If it dies before that, the next writer writes over what it
// has left.

// Send sends a copy of message. While the ring is full of what readers have not read
// yet, Send waits, until ctx ends; the error says then which reader is behind and by
// how much.
//
// Errors: ErrClosed, ErrNotStream if another program has written into the ring;
// shm.ErrSize if the message takes more than half the ring; shm.ErrNoSpace if there
// are too many writers; shm.ErrCorrupt if another program has truncated the file; the
// context's.
func (s *Stream) Send(ctx context.Context, message []byte) (err error) {
	if err := s.begin(ctx, "send", len(message)); err != nil {
		return err
	}
	locked := true
	defer s.finish("send", &s.section, &locked, debug.SetPanicOnFault(true), &err)
	if err := s.makeRoom(ctx, "send", len(message), &locked); err != nil {
		return err
	}
	copy(s.ring.message(&s.at.record), message)
	s.publish()
	locked = false
	return s.unlock("send")
}

func (s *Stream) unlock(op string) error {
	if err := s.seg.Unlock(); err != nil {
		return fail(op, s.key, err)
	}
	return nil
}

// A Reservation is room for a message in the ring, to be written in place.
type Reservation struct {
	s      *Stream
	serial uint64 // which reservation of s it is
}

// Reserve makes room for a message of n bytes. Until Commit or Abort, no other
// process or goroutine can send. Readers are not held up.
//
// Errors: those of Send.
func (s *Stream) Reserve(ctx context.Context, n int) (*Reservation, error) {
	r, err := s.place(ctx, n)
	if err != nil {
		return nil, err
	}
	return &r, nil // Reserve is inlined, so that this takes no heap memory
}

func (s *Stream) place(ctx context.Context, n int) (r Reservation, err error) {
	if err := s.begin(ctx, "reserve", n); err != nil {
		return r, err
	}
	locked := true
	defer s.finish("reserve", &s.section, &locked, debug.SetPanicOnFault(true), &err)
	if err := s.makeRoom(ctx, "reserve", n, &locked); err != nil {
		return r, err
	}
	locked = false // kept
	s.serial++
	s.reserved.Store(s.serial)
	return Reservation{s, s.serial}, nil
}

// Bytes returns the memory of the message, aligned to 8 bytes. What it holds is
// arbitrary. It must not be used after Commit or Abort.
func (r *Reservation) Bytes() []byte { return r.s.ring.message(&r.s.at.record) }

// Commit sends the message.
//
// Errors: ErrClosed if the reservation was committed or aborted, or the stream was
// closed; shm.ErrCorrupt as Send.
func (r *Reservation) Commit() error { return r.end("commit", true) }

// Abort gives the reservation back: nothing is sent. After Commit it does nothing and
// reports ErrClosed.
func (r *Reservation) Abort() error { return r.end("abort", false) }

func (r *Reservation) end(op string, send bool) (err error) {
	s := r.s
	if !s.section.enter() {
		return fail(op, s.key, ErrClosed)
	}
	locked := s.reserved.CompareAndSwap(r.serial, 0)
	defer s.finish(op, &s.section, &locked, debug.SetPanicOnFault(true), &err)
	if !locked {
		return fail(op, s.key, ErrClosed)
	}
	if send {
		s.publish()
	}
	locked = false
	return s.unlock(op)
}

// A reader with Latest looks for the newest message from last on, which is so far
// behind at most, or one message.
const hintDistance = 4096

// place is where a message goes.
type place struct {
	record
	padding uint64 // where the padding before it begins; noPadding: there is none
}

const noPadding = 1<<64 - 1

// publish makes the message at s.at count. The caller holds the lock.
func (s *Stream) publish() {
	r, p := s.ring, &s.at
	failpoint.At("stream_padding")
	if p.padding != noPadding {
		r.set(p.padding, 0, padding) // [padding]
	}
	failpoint.At("stream_record")
	r.set(p.off, p.number, uint32(p.length)) // [record]
	failpoint.At("stream_tail")
	r.tail.Store(p.end) // [tail]
	failpoint.At("stream_sent")
	r.sent++
	if p.pos-r.last.Load() >= hintDistance {
		r.last.Store(p.pos)
	}
	failpoint.At("stream_unlock")
}

// begin takes the lock for a message of n bytes, and enters the section.
func (s *Stream) begin(ctx context.Context, op string, n int) error {
	if n < 0 || n > s.ring.maxMessage() {
		return fail(op, s.key, fmt.Errorf("%w: a message of %d bytes; a ring of %d takes up to %d", shm.ErrSize, n, s.ring.capacity, s.ring.maxMessage()))
	}
	if err := s.seg.LockContext(ctx); err != nil {
		return fail(op, s.key, err)
	}
	if !s.section.enter() {
		s.seg.Unlock()
		return fail(op, s.key, ErrClosed)
	}
	return nil
}

// makeRoom finds the place of a message of n bytes, s.at. The caller has the lock; while
// a reader is behind, makeRoom releases it. *locked tells whether it has the lock.
func (s *Stream) makeRoom(ctx context.Context, op string, n int, locked *bool) error {
	var wait *slice
	for {
		if !*locked {
			if err := s.lock(ctx, &s.section); err != nil {
				return fail(op, s.key, err)
			}
			*locked = true
		}
		err := s.becomeWriter()
		if err != nil {
			return fail(op, s.key, err)
		}
		behind, err := s.findPlace(n)
		if err != nil {
			return fail(op, s.key, err)
		}
		if behind == nil {
			return nil
		}
		*locked = false
		if err := s.unlock(op); err != nil {
			return err
		}
		if wait == nil {
			begin := newSlice(ctx)
			wait = &begin
		}
		err = s.section.blocking(func() error {
			return s.seg.UpdateWhen(wait, func([]byte) bool {
				behind, err = s.findPlace(n)
				return behind == nil || err != nil
			}, func([]byte) error { return nil })
		})
		switch {
		case err == nil:
		case errors.Is(err, ErrClosed):
			return fail(op, s.key, err)
		case wait.over(err):
			if err := s.reap(ctx); err != nil {
				return fail(op, s.key, err)
			}
		case errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled): // ctx itself may be a little late
			return fail(op, s.key, fmt.Errorf("%w while %s", cause(err), s.describeReader(behind)))
		default:
			return fail(op, s.key, err)
		}
	}
}

// lock takes the segment's lock for a call that is in sec.
func (s *Stream) lock(ctx context.Context, sec *section) error {
	locked := false
	err := sec.blocking(func() error {
		err := s.seg.LockContext(ctx)
		locked = err == nil
		return err
	})
	if err != nil && locked { // the section was closed meanwhile
		s.seg.Unlock()
	}
	return err
}

// findPlace finds the place of a message of n bytes, s.at, and moves head out of its
// way. If a reader is behind, it reports that reader instead. The caller holds the lock.
func (s *Stream) findPlace(n int) (behind *cursor, err error) {
	r, p := s.ring, &s.at
	head, tail, err := r.ends()
	if err != nil {
		return nil, err
	}
	size := recordSize(n)
	p.pos, p.off, p.length, p.number, p.padding = tail, tail%r.capacity, n, uint32(r.sent), noPadding
	if left := r.capacity - p.off; left < size {
		p.padding = p.off
		p.pos, p.off = tail+left, 0
	}
	p.end = p.pos + size
	if p.end-head <= r.capacity {
		s.touch(head)
		return nil, nil
	}
	oldest := p.end - r.capacity
	if oldest > r.floor.Load() || r.floor.Load() > tail {
		if behind = s.lookForReaders(oldest, tail); behind != nil {
			return behind, nil
		}
	}
	// A little more at once, so that not every message moves head.
	for more := min(oldest+r.capacity/64, r.floor.Load()); head < oldest || head < more; {
		rec, ok := r.at(head, tail)
		if !ok {
			return nil, errCorruptRing
		}
		head = rec.end
	}
	failpoint.At("stream_head")
	r.head.Swap(head) // [head] before any byte of the old records is overwritten
	s.touch(head)
	return nil, nil
}

// touch touches the cache lines of this message and the next ones.
func (s *Stream) touch(head uint64) {
	if p := &s.at; p.end-p.pos < smallRecord && int64(p.end-s.touched) > 0 {
		s.touched = s.ring.touch(p.pos, head+s.ring.capacity, true)
	}
}

// lookForReaders finds out how far the readers are. If one is behind oldest, it is
// returned, and the readers know from then on that a writer waits.
func (s *Stream) lookForReaders(oldest, tail uint64) *cursor {
	r := s.ring
	floor, behind := s.slowest(tail)
	if floor < oldest {
		// A quarter of the ring at once, so that a fast writer is not woken for each
		// message.
		want := oldest
		if most := r.capacity / 4 * 3; tail > most {
			want = max(oldest, tail-most)
		}
		s.want(want)
		floor, behind = s.slowest(tail) // [look_again]
	}
	r.floor.Store(min(floor, tail))
	if floor < oldest {
		return behind
	}
	return nil
}

// want asks the readers to tell when they are at pos.
func (s *Stream) want(pos uint64) {
	for {
		w := s.ring.wanted.Load()
		if w != 0 && w <= pos+1 || s.ring.wanted.CompareAndSwap(w, pos+1) { // [want]
			return
		}
	}
}

// slowest returns the smallest position that a reader holds up writers at, and which
// reader does; tail if none does. Groups come first: a member writes the position to
// its cursor before it moves that of the group.
func (s *Stream) slowest(tail uint64) (pos uint64, behind *cursor) {
	r := s.ring
	var active [maxGroups]bool
	var next [maxGroups]uint64
	for i := range r.groups {
		g := &r.groups[i]
		active[i] = g.used.Load() != 0 && g.idle.Load() == 0
		next[i] = groupPos(g.word.Load())
	}
	pos = tail
	for i := range r.cursors {
		c := &r.cursors[i]
		if c.owner.Load() == 0 {
			continue
		}
		mode, at := c.mode.Load(), c.pos.Load()
		switch {
		case mode == modeAll:
		case mode >= modeGroup && mode < modeGroup+maxGroups && active[mode-modeGroup]:
			if at == 0 {
				at = next[mode-modeGroup]
			}
			at = memberPos(at)
		default:
			continue
		}
		if int64(tail-at) > int64(tail-pos) {
			pos, behind = at, c
		}
	}
	return pos, behind
}

// reap takes away what dead readers hold, after a writer has waited for a while.
func (s *Stream) reap(ctx context.Context) error {
	if err := s.lock(ctx, &s.section); err != nil {
		return err
	}
	r := s.ring
	var live [maxGroups]bool
	var moves [maxGroups]uint32
	for i := range r.groups {
		moves[i] = r.groups[i].moves.Load()
	}
	for i := range r.cursors {
		c := &r.cursors[i]
		id, mode := c.owner.Load(), c.mode.Load()
		switch {
		case id == 0:
		case s.seg.Alive(id):
			if mode >= modeGroup && mode < modeGroup+maxGroups {
				live[mode-modeGroup] = true
			}
		case mode < modeGroup || mode >= modeGroup+maxGroups || !s.holds(c, int(mode-modeGroup)):
			failpoint.At("stream_reap")
			c.owner.CompareAndSwap(id, 0) // [reap]
		}
	}
	for i := range r.groups {
		// A member that has moved to another cursor meanwhile may have been missed.
		if g := &r.groups[i]; g.used.Load() != 0 && !live[i] && g.moves.Load() == moves[i] {
			g.idle.Store(1)
		}
	}
	return s.unlock("send")
}

// Flush waits until every reader that holds up writers has read what was sent before
// the call: it has asked for the next message, or has closed its subscription.
// Readers with Latest do not count, and if there is no reader, Flush returns at once.
//
// Errors: ErrClosed; shm.ErrCorrupt as Send; the context's.
func (s *Stream) Flush(ctx context.Context) (err error) {
	return s.await(ctx, "flush", func(tail uint64) (done bool) {
		pos, _ := s.slowest(tail)
		if pos < tail {
			s.want(tail)
			pos, _ = s.slowest(tail)
		}
		return pos == tail
	})
}

// AwaitReader waits until there is a reader.
//
// Errors: ErrClosed; shm.ErrCorrupt as Send; the context's.
func (s *Stream) AwaitReader(ctx context.Context) error {
	return s.await(ctx, "await", func(uint64) bool {
		for i := range s.ring.cursors {
			if id := s.ring.cursors[i].owner.Load(); id != 0 && s.seg.Alive(id) {
				return true
			}
		}
		return false
	})
}

// await waits until done reports true. done gets the end of the newest message as it
// was at the beginning.
func (s *Stream) await(ctx context.Context, op string, done func(tail uint64) bool) (err error) {
	if !s.section.enter() {
		return fail(op, s.key, ErrClosed)
	}
	locked := false
	defer s.finish(op, &s.section, &locked, debug.SetPanicOnFault(true), &err)
	if err := ctx.Err(); err != nil {
		return fail(op, s.key, err)
	}
	wait := newSlice(ctx)
	tail := s.ring.tail.Load()
	for {
		version := s.seg.Version()
		if done(tail) {
			return nil
		}
		err := s.section.blocking(func() error {
			_, err := s.seg.Wait(&wait, version)
			return err
		})
		if err != nil && wait.over(err) {
			err = s.reap(ctx)
		}
		if err != nil {
			return fail(op, s.key, err)
		}
	}
}
