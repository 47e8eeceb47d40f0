package shm

import (
	"context"
	"iter"
	"runtime"
	"runtime/debug"
	"time"

	"qshm/shm/internal/failpoint"
)

// Waiting for the version to move. The steps in brackets are those of
// test/models/version.pml.

// Version returns how many times the segment has been unlocked by an attachment
// that may have written, modulo 2³². It never moves without the data having been,
// or being allowed to be, changed. It is 0 once detached.
func (s *Segment) Version() uint32 {
	if !headerOutlivesDetach {
		if !s.enter() {
			return 0
		}
		defer s.leave()
	}
	if s.detached() {
		return 0
	}
	v := version(s.head.word.Load())
	runtime.KeepAlive(s.m)
	return v
}

// The event word is an eventcount. A waiter arms it before it sleeps; a writer that
// finds it armed counts it up, which no sleeper misses, and wakes all. An event
// word that is not armed costs the writer one load. So a waiter that was killed
// costs the next writer one system call, and nothing after that.
const eventArmed = 1

// eventSlice is how long a waiter sleeps at most. It matters only if a process dies
// while it holds the lock, or between moving the version and the wake.
const eventSlice = 2 * time.Second

// signal wakes all waiters for the version, which has moved already.
func (m *mapping) signal() {
	for e := m.head.event.Load(); e&eventArmed != 0; e = m.head.event.Load() {
		if m.head.event.CompareAndSwap(e, e+1) { // [signal]
			failpoint.At("signal")
			m.eventWord.Wake()
			return
		}
	}
}

// Wait sleeps until the version is another than since, and returns it. A version to
// start with comes from Version or Snapshot: no change between that and Wait is
// missed. Several changes may pass as one.
//
// Waiting does not poll: the change wakes the waiter. Where changes have come often,
// Wait spins for up to 40 microseconds before it sleeps. If a process dies while it
// holds the lock, the version moves too, within two seconds. Waiting takes one
// operating-system thread in each process, however many goroutines wait.
//
// Errors: ErrDetached, and the context's, at once when it ends; ErrCorrupt if
// another program has truncated the file to nothing.
func (s *Segment) Wait(ctx context.Context, since uint32) (now uint32, err error) {
	if err := ctx.Err(); err != nil {
		return since, fail("wait", s.key, err)
	}
	if !s.enter() {
		return since, fail("wait", s.key, ErrDetached)
	}
	defer s.finishCall("wait", debug.SetPanicOnFault(true), &err)
	v, err := s.waitFor(ctx, since)
	if err != nil {
		return since, fail("wait", s.key, err)
	}
	return v, nil
}

// Notify moves the version and wakes the processes that wait for it, without taking
// the lock: it announces a change that was made by atomic operations.
//
// Errors: ErrDetached, ErrReadOnly; ErrCorrupt if another program has truncated the
// file to nothing.
func (s *Segment) Notify() (err error) {
	if s.readOnly {
		return s.readOnlyError("notify")
	}
	if !s.enter() {
		return fail("notify", s.key, ErrDetached)
	}
	defer s.finishCall("notify", debug.SetPanicOnFault(true), &err)
	failpoint.At("notify")
	s.head.word.Add(versionOne) // [notify]
	s.m.signal()
	return nil
}

// Changes yields the version as it is now, and then each time that it has moved,
// until the loop breaks off. Changes during the loop's body are yielded as one. If
// the context or the attachment ends, the last thing yielded is the error of Wait.
//
//	for version, err := range seg.Changes(ctx) {
//		if err != nil {
//			return err
//		}
//		n, _, err := seg.Snapshot(buf)
//		…
//	}
func (s *Segment) Changes(ctx context.Context) iter.Seq2[uint32, error] {
	return func(yield func(uint32, error) bool) {
		if s.detached() {
			yield(0, fail("wait", s.key, ErrDetached))
			return
		}
		version := s.Version()
		for err := error(nil); yield(version, err) && err == nil; {
			version, err = s.Wait(ctx, version)
		}
	}
}

// waitFor waits until the version has moved. One goroutine of the process, the
// watcher, sleeps on the event word; when it has seen a change or given up, it
// tells the others, and one of them takes its place.
func (s *Segment) waitFor(ctx context.Context, since uint32) (uint32, error) {
	for {
		if v := version(s.head.word.Load()); v != since {
			return v, nil
		}
		select {
		case s.m.watcher <- struct{}{}:
			return s.watchVersion(ctx, since)
		default:
		}
		changed := s.m.nextChange()
		if v := version(s.head.word.Load()); v != since {
			return v, nil
		}
		select {
		case s.m.watcher <- struct{}{}:
			return s.watchVersion(ctx, since)
		case <-changed:
		case <-ctx.Done():
			return since, ctx.Err()
		case <-s.detachedCh:
			return since, ErrDetached
		}
	}
}

// nextChange returns a channel that the watcher closes when it has seen a change.
func (m *mapping) nextChange() <-chan struct{} {
	m.changing.Lock()
	defer m.changing.Unlock()
	if m.changed == nil {
		m.changed = make(chan struct{})
	}
	return m.changed
}

// resignWatcher lets another goroutine be the watcher, and tells the others that
// the version may have moved.
func (m *mapping) resignWatcher() {
	<-m.watcher
	m.changing.Lock()
	defer m.changing.Unlock()
	if m.changed != nil {
		close(m.changed)
		m.changed = nil
	}
}

// watchVersion sleeps until the version has moved.
func (s *Segment) watchVersion(ctx context.Context, since uint32) (uint32, error) {
	defer s.m.resignWatcher()
	w := s.watch(ctx)
	defer s.unwatch(w)
	h := s.head
	if s.m.patience.Spin(func() bool { return version(h.word.Load()) != since }) {
		return version(h.word.Load()), nil // without arming, which would cost the next writer a system call
	}
	begin := time.Now()
	defer func() { s.m.patience.Slept(time.Since(begin)) }()
	probed := begin
	deadline, hasDeadline := ctx.Deadline()
	for {
		ticket := s.m.eventWord.Ticket()
		e := h.event.Load()
		if e&eventArmed == 0 {
			failpoint.At("arm")
			if !h.event.CompareAndSwap(e, e|eventArmed) { // [arm]
				continue
			}
			e |= eventArmed
		}
		// After arming: a writer that moves the version from here on finds the event
		// word armed.
		if v := version(h.word.Load()); v != since {
			return v, nil
		}
		if err := ctx.Err(); err != nil {
			return since, err
		}
		if s.detached() {
			return since, ErrDetached
		}
		now := time.Now()
		if now.Sub(probed) >= eventSlice {
			probed = now
			s.m.abandonIfDead(h.word.Load())
			continue
		}
		limit := eventSlice
		if hasDeadline {
			if limit = min(limit, deadline.Sub(now)); limit <= 0 {
				return since, context.DeadlineExceeded // the context's own timer is a little late
			}
		}
		failpoint.At("listen")
		s.m.eventWord.Sleep(ticket, e, limit) // [listen]
	}
}

// watch is how a sleeper learns that its context has ended: a function that the
// context package calls interrupts the sleep. It is set up once for each context
// and not for each Wait, so that waiting again and again does not allocate.
type watch struct {
	waiting int // how many calls wait with this context
	stop    func() bool
}

// watch sees to it that sleeps of this process are interrupted when ctx ends.
func (s *Segment) watch(ctx context.Context) *watch {
	done := ctx.Done()
	if done == nil {
		return nil
	}
	s.watching.Lock()
	defer s.watching.Unlock()
	w := s.watches[done]
	if w == nil {
		w = &watch{stop: context.AfterFunc(ctx, func() { s.contextEnded(done) })}
		if s.watches == nil {
			s.watches = map[<-chan struct{}]*watch{}
		}
		s.watches[done] = w
	}
	w.waiting++
	return w
}

func (s *Segment) unwatch(w *watch) {
	if w != nil {
		s.watching.Lock()
		w.waiting--
		s.watching.Unlock()
	}
}

func (s *Segment) contextEnded(done <-chan struct{}) {
	s.watching.Lock()
	defer s.watching.Unlock()
	w := s.watches[done]
	delete(s.watches, done)
	if w != nil && w.waiting > 0 {
		// The calls that wait are counted in, and cannot leave before unwatch. To
		// count this one in too would let it outlive them and a Detach.
		s.m.interrupt()
	}
}

// interrupt ends the sleeps of this process, of no other: each sleeper looks why.
func (m *mapping) interrupt() {
	m.lockWord.Interrupt()
	m.eventWord.Interrupt()
}

// unwatchAll forgets all contexts.
func (s *Segment) unwatchAll() {
	s.watching.Lock()
	defer s.watching.Unlock()
	for _, w := range s.watches {
		w.stop()
	}
	s.watches = nil
}
