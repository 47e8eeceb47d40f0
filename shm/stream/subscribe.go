package stream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"runtime/debug"
	"slices"
	"time"

	"qshm/shm"
	"qshm/shm/internal/failpoint"
	"qshm/shm/internal/spin"
)

// An Option says what a subscription gets.
type Option func(*options)

type options struct {
	fromOldest bool
	latest     bool
	group      bool
	name       string
}

// FromOldest lets a subscription begin with the oldest message that the ring holds.
// For a group, it matters only to the first member there ever was.
func FromOldest() Option { return func(o *options) { o.fromOldest = true } }

// Latest lets Next return the newest message, and pass over those before it: see Lost.
// Such a reader holds up no writer. Next returns a copy, since a writer may overwrite
// the message in the ring at any time.
func Latest() Option { return func(o *options) { o.latest = true } }

// Group makes the subscription a member of the group of this name, 1 to 64 bytes
// long: each message goes to one of its members.
func Group(name string) Option { return func(o *options) { o.group, o.name = true, name } }

// A Subscription is a reader. One goroutine at a time may use it; Close may be called
// by any.
//
// A Subscription that the program loses without Close counts as a reader that is
// behind until the process ends.
type Subscription struct {
	s       *Stream
	section section
	cursor  *cursor
	index   int
	mode    uint32
	group   int // the index of the group; -1: none

	pos      uint64 // where the next record is; of a member, unused
	size     uint64 // of the last record
	touched  uint64 // cache lines before it were loaded
	seen     uint64 // records up to here count
	number   uint32 // of the message expected next
	lost     uint64
	again    bool     // the last message was delivered before
	taken    int      // messages since this member has looked for dead ones
	base     uint64   // writers that had come and gone before
	former   []uint64 // writers that were dead before
	copied   []byte   // the last message, with Latest
	patience spin.Patience
	ease     int // how long to wait before looking, in pauses
	wait     slice
}

// subscribePatience bounds the wait of Subscribe for a writer in the middle of a
// message, as shm bounds waits without a context.
const subscribePatience = 10 * time.Second

// Subscribe makes this process a reader. Without options, it gets every message that
// is sent from now on. Subscribe waits for a writer that is in the middle of a
// message, ten seconds at most.
//
// Errors: ErrClosed; ErrGroup; shm.ErrNoSpace if there are 64 readers or 16 groups;
// shm.ErrBusy after ten seconds; ErrNotStream and shm.ErrCorrupt as Send.
func (s *Stream) Subscribe(opts ...Option) (sub *Subscription, err error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	switch {
	case o.group && (o.name == "" || len(o.name) > maxGroupName):
		return nil, fail("subscribe", s.key, fmt.Errorf("%w: the name %q has %d bytes; a name has 1 to %d", ErrGroup, shorten(o.name), len(o.name), maxGroupName))
	case o.group && o.latest:
		return nil, fail("subscribe", s.key, fmt.Errorf("%w %q with Latest: a group passes over no message", ErrGroup, o.name))
	case !s.section.enter():
		return nil, fail("subscribe", s.key, ErrClosed)
	}
	locked := false
	defer s.finish("subscribe", &s.section, &locked, debug.SetPanicOnFault(true), &err)
	ctx, cancel := context.WithTimeout(context.Background(), subscribePatience)
	defer cancel()
	if err := s.lock(ctx, &s.section); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %v: a writer is in the middle of a message", shm.ErrBusy, err)
		}
		return nil, fail("subscribe", s.key, err)
	}
	locked = true
	sub = &Subscription{s: s, group: -1}
	if err := sub.begin(o); err != nil {
		return nil, fail("subscribe", s.key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.subs == nil {
		sub.close()
		return nil, fail("subscribe", s.key, ErrClosed)
	}
	s.subs[sub] = struct{}{}
	locked = false
	return sub, s.unlock("subscribe") // the version moves: see AwaitReader
}

func shorten(name string) string {
	if len(name) > 16 {
		return name[:16] + "…"
	}
	return name
}

// begin claims a cursor and finds where to begin. The caller holds the lock, so
// that no writer moves head meanwhile.
func (r *Subscription) begin(o options) error {
	h := r.s.ring
	head, tail, err := h.ends()
	if err != nil {
		return err
	}
	start := tail
	if o.fromOldest {
		start = head
	}
	switch r.mode = modeAll; {
	case o.latest:
		r.mode = modeNew
	case o.group:
		i, err := r.s.joinGroup(o.name, start, head)
		if err != nil {
			return err
		}
		r.group, r.mode = i, uint32(modeGroup+i)
	}
	if err := r.claim(start); err != nil {
		return err
	}
	if r.mode == modeAll {
		h.floor.Store(min(h.floor.Load(), start))
	}
	r.pos, r.seen = start, start
	r.number = uint32(h.sent)
	if o.fromOldest {
		r.number -= r.count(head, tail)
	}
	if o.fromOldest || o.group {
		return nil
	}
	// Writers that had closed or died before do not end this subscription.
	r.base = h.opened.Load()
	for i := range h.writers {
		switch id := h.writers[i].Load(); {
		case id == 0:
		case r.s.seg.Alive(id):
			r.base--
		default:
			r.former = append(r.former, id)
		}
	}
	return nil
}

// count counts the messages in the ring.
func (r *Subscription) count(head, tail uint64) (n uint32) {
	for head != tail {
		rec, ok := r.s.ring.at(head, tail)
		if !ok {
			break
		}
		if head = rec.end; rec.length >= 0 {
			n++
		}
	}
	return n
}

// claim takes a cursor: a free one, or that of a dead reader. A dead member's may
// hold a message to deliver again; joinGroup has cleared those of groups without a
// live member that cannot.
func (r *Subscription) claim(start uint64) error {
	h := r.s.ring
	for i := range h.cursors {
		c := &h.cursors[i]
		id := c.owner.Load()
		if id != 0 && (c.mode.Load() >= modeGroup && c.pos.Load() != 0 || r.s.seg.Alive(id)) {
			continue
		}
		// Until its position is written, the cursor is nobody's: what its former owner
		// has left must not be taken for that of the new one, if that dies here.
		c.mode.Store(0)
		failpoint.At("stream_claim")
		if !c.owner.CompareAndSwap(id, r.s.id) { // [claim_cursor]
			continue
		}
		failpoint.At("stream_cursor")
		r.cursor, r.index = c, i
		c.pid.Store(uint32(pid))
		if r.group >= 0 {
			start = 0
		}
		c.pos.Store(start)
		c.mode.Store(r.mode)
		return nil
	}
	return fmt.Errorf("%w: a stream has at most %d readers", shm.ErrNoSpace, maxReaders)
}

// Next waits for the next message and returns it in place: the slice must not be
// written to, and must not be used after the next call of Next or Close. If the context
// has ended already, Next returns a message that is there and does not wait for one.
//
// Errors: io.EOF if every writer has closed, and everything was read; ErrWriterDied if
// a writer has died instead, and no other has come since. A writer that comes later
// makes Next go on. ErrClosed; ErrNotStream and shm.ErrCorrupt as Send; the context's.
func (r *Subscription) Next(ctx context.Context) (message []byte, err error) {
	if !r.section.enter() {
		return nil, fail("next", r.s.key, ErrClosed)
	}
	locked := false
	defer r.s.finish("next", &r.section, &locked, debug.SetPanicOnFault(true), &err)
	r.release()
	waiting := false
	for {
		message, ok, err := r.poll(ctx)
		if ok {
			return message, nil
		}
		if err != nil {
			return nil, fail("next", r.s.key, err)
		}
		if err := ctx.Err(); err != nil {
			return nil, fail("next", r.s.key, err)
		}
		if r.patience.Spin(r.more) {
			continue
		}
		if !waiting {
			r.wait, waiting = newSlice(ctx), true
		}
		if err := r.sleep(); err != nil {
			if r.group >= 0 && (err == io.EOF || errors.Is(err, ErrWriterDied)) {
				r.s.seg.Notify() // other members may wait for this one
			}
			if err == io.EOF {
				return nil, io.EOF
			}
			return nil, fail("next", r.s.key, err)
		}
	}
}

// release ends the use of the message that Next has returned last.
func (r *Subscription) release() {
	failpoint.At("stream_release")
	if r.group >= 0 {
		if r.cursor.pos.Load() != 0 {
			r.cursor.pos.Store(0) // [finish]
			r.tell(groupPos(r.shared().word.Load()))
		}
		return
	}
	if r.cursor.pos.Load() != r.pos {
		r.cursor.pos.Store(r.pos) // [advance]
		r.tell(r.pos)
	}
}

// tell wakes a writer that waits for the readers to come to pos.
func (r *Subscription) tell(pos uint64) {
	if w := r.s.ring.wanted.Load(); w != 0 && int64(pos-(w-1)) >= 0 && r.s.ring.wanted.CompareAndSwap(w, 0) {
		failpoint.At("stream_tell")
		r.s.seg.Notify() // [tell]
	}
}

// poll returns the next message if there is one.
func (r *Subscription) poll(ctx context.Context) ([]byte, bool, error) {
	switch r.mode {
	case modeAll:
		return r.pollAll()
	case modeNew:
		return r.pollNew(ctx)
	}
	return r.pollGroup()
}

// pollAll is poll for a reader of every message.
func (r *Subscription) pollAll() ([]byte, bool, error) {
	h := r.s.ring
	for {
		if r.pos == r.seen && !r.look() {
			return nil, false, nil
		}
		if r.size < smallRecord && int64(r.pos-r.touched) >= 0 {
			r.touched = h.touch(r.pos, r.seen, false)
		}
		rec, ok := h.at(r.pos, r.seen)
		if !ok {
			return nil, false, errCorruptRing
		}
		r.pos, r.size = rec.end, rec.end-rec.pos
		if rec.length >= 0 {
			r.number = rec.number + 1
			return h.message(&rec), true, nil
		}
	}
}

// look looks for records after those that were seen, and reports whether there are
// any. Each look takes a cache line from the writer. If a writer sends without a
// pause, a reader that is faster would look after each message: such a reader waits a
// little, until there are some.
func (r *Subscription) look() bool {
	for range r.ease {
		spin.Pause()
	}
	before := r.seen
	switch r.seen = r.s.ring.tail.Load(); {
	case r.seen == before:
		r.ease /= 2
		return false
	case r.seen-before < linesOnce*cacheLine:
		r.ease = min(2*r.ease+1, maxEase)
	case r.ease > 0:
		r.ease--
	}
	return true
}

// How often a reader with Latest tries to copy a message while writers overwrite it.
const latestTries = 8

// pollNew is poll for a reader of the newest message.
func (r *Subscription) pollNew(ctx context.Context) ([]byte, bool, error) {
	h := r.s.ring
	for try := 0; h.tail.Load() != r.pos; try++ {
		if try == latestTries { // the writers are faster than the copy
			if err := r.s.lock(ctx, &r.section); err != nil {
				return nil, false, err
			}
			defer r.s.seg.Unlock()
		}
		head, tail, err := h.ends()
		if err != nil {
			return nil, false, err
		}
		pos := r.pos
		if int64(head-pos) > 0 {
			pos = head
		}
		if last := h.last.Load(); int64(last-pos) > 0 && int64(tail-last) > 0 {
			pos = last
		}
		newest := record{length: -1}
		for pos != tail {
			rec, ok := h.at(pos, tail)
			if !ok {
				break
			}
			if pos = rec.end; rec.length >= 0 {
				newest = rec
			}
		}
		if newest.length >= 0 {
			r.copied = h.copyMessage(r.copied, &newest)
		}
		r.cursor.pos.Store(pos) // orders the copy before the look at head
		if now := h.head.Load(); pos == tail && newest.length >= 0 && int64(newest.pos-now) >= 0 {
			r.pos = tail
			if lost := int32(newest.number - r.number); lost > 0 {
				r.lost += uint64(lost)
			}
			r.number = newest.number + 1
			return r.copied, true, nil
		}
		if try > latestTries {
			return nil, false, errCorruptRing
		}
	}
	return nil, false, nil
}

func (r *Subscription) more() bool {
	h := r.s.ring
	if r.group >= 0 {
		return groupPos(r.shared().word.Load()) != h.tail.Load()
	}
	return h.tail.Load() != r.pos
}

// maxEase is a number of pauses, a microsecond or so.
const maxEase = 64

// sleep waits for a change, and looks from time to time whether writers and members of
// the group are alive.
func (r *Subscription) sleep() error {
	version := r.s.seg.Version()
	if r.more() {
		return nil
	}
	if err := r.writersGone(false); err != nil {
		return err
	}
	r.section.leave()
	begin := time.Now()
	_, err := r.s.seg.Wait(&r.wait, version)
	r.patience.Slept(time.Since(begin))
	if !r.section.reenter() {
		return ErrClosed
	}
	if err != nil && r.wait.over(err) {
		r.taken = lookForDead // at the next poll
		err = r.writersGone(true)
	}
	return err
}

// writersGone returns io.EOF if every writer has closed, or ErrWriterDied, and
// everything was read. Whether writers are alive is only asked if ask is set.
func (r *Subscription) writersGone(ask bool) error {
	h := r.s.ring
	died := false
	opened := h.opened.Load()
	for i := range h.writers {
		id := h.writers[i].Load()
		switch {
		case id == 0 || slices.Contains(r.former, id):
		case !ask || r.s.seg.Alive(id):
			return nil
		default:
			died = true
		}
	}
	switch {
	case r.more(): // sent before the writer has closed
		return nil
	case h.opened.Load() != opened: // a writer came before the last one has closed
		return nil
	case r.group >= 0 && r.othersHold():
		return nil // one of them may die
	case died:
		return ErrWriterDied
	case opened != r.base:
		return io.EOF
	}
	return nil
}

// Messages yields the messages, each as Next returns it, until the loop breaks off. It
// ends when Next reports io.EOF; another error is the last thing that it yields.
func (r *Subscription) Messages(ctx context.Context) iter.Seq2[[]byte, error] {
	return func(yield func([]byte, error) bool) {
		for {
			message, err := r.Next(ctx)
			if errors.Is(err, io.EOF) || !yield(message, err) || err != nil {
				return
			}
		}
	}
}

// Lost returns how many messages a reader with Latest has passed over. It is exact up
// to one for each writer that has died.
func (r *Subscription) Lost() uint64 { return r.lost }

// Redelivered reports whether the message that Next has returned last was delivered
// to another member of the group before, which has died before it was done.
func (r *Subscription) Redelivered() bool { return r.again }

// Close ends the subscription. The message that Next has returned last counts as read.
// A second Close reports nil.
func (r *Subscription) Close() error {
	if !r.s.section.enter() {
		return nil // the Stream is closed, and has closed its subscriptions
	}
	defer r.s.section.leave()
	r.close()
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	delete(r.s.subs, r)
	return nil
}

// close gives the cursor back.
func (r *Subscription) close() {
	if !r.section.close() {
		return
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { recover() }() // the file was truncated: there is no cursor any more
	failpoint.At("stream_unsubscribe")
	if r.group >= 0 {
		r.cursor.pos.Store(0)
	}
	r.cursor.owner.CompareAndSwap(r.s.id, 0) // [free_cursor]
	r.s.ring.wanted.Store(0)
	r.s.seg.Notify()
}
