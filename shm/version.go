package shm

import (
	"context"
	"iter"
	"runtime"
	"runtime/debug"
	"time"
)

// This file is about change: the version, waiting for it to move, and copies
// that are consistent without taking the lock.

func version(w uint64) uint32 { return uint32(w >> 32) }

// Version returns how many times the segment has been unlocked by somebody who
// may have written, modulo 2³². It never moves without the data having been, or
// being allowed to be, changed. It is 0 once detached.
func (s *Segment) Version() uint32 {
	if !tombs {
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

// The bell wakes those who wait for the version to move. It is armed by who is
// about to sleep, and counts on when it rings, so that no sleeper misses it. To
// ring one that is not armed is a look at it; so a waiter that was killed costs
// the next writer one system call, and nobody more.
const bellArmed = 1

// How long a waiter sleeps at most. It matters only if a writer dies between
// moving the version and ringing.
const bellSlice = time.Second

// ring wakes all who wait for the version. The version has moved already.
func (h *header) ring() {
	for b := h.bell.Load(); b&bellArmed != 0; b = h.bell.Load() {
		if h.bell.CompareAndSwap(b, b+1) {
			fault("ring")
			wake(h.bellWord(), everybody)
			return
		}
	}
}

// Wait sleeps until the version is another than since, and returns it. A version
// to start with comes from Version or Snapshot: what happens between that and
// Wait is not missed. Several changes may pass as one.
//
// Waiting makes no noise: the sleeper is woken by the change. It holds an
// operating-system thread meanwhile.
//
// Errors: ErrDetached, and the context's, at once when it ends; ErrCorrupt if
// somebody has truncated the file to nothing.
func (s *Segment) Wait(ctx context.Context, since uint32) (now uint32, err error) {
	if err := ctx.Err(); err != nil {
		return since, fail("wait", s.key, err)
	}
	if !s.enter() {
		return since, fail("wait", s.key, ErrDetached)
	}
	defer s.done("wait", debug.SetPanicOnFault(true), &err)
	if v := version(s.head.word.Load()); v != since {
		return v, nil
	}
	w := s.watch(ctx)
	defer s.unwatch(w)
	v, err := s.waitFor(ctx, since)
	if err != nil {
		return since, fail("wait", s.key, err)
	}
	return v, nil
}

// Changes yields the version as it is now, and then each time that it has moved,
// until the loop breaks off. What moves while the loop is at work is yielded as
// one change. The last thing yielded, if the context or the attachment ends, is
// the error of Wait.
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

// watch is how a sleeper learns that its context has ended: what the context
// package calls then rings the bell. It is set up once for each context, not for
// each Wait, so that waiting again and again does not allocate.
type watch struct {
	waiting int // how many are waiting with this context
	stop    func() bool
}

// watch sees to it that the bell rings when ctx ends.
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
		// Those who wait are counted in, and cannot leave before they have been at
		// unwatch. To count this one in too would let it outlive them, and a Detach.
		s.m.alarm()
	}
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

// alarm wakes all who wait for the version, of whatever process, so that the one
// whose wait is over notices.
func (m *mapping) alarm() {
	defer m.survive(debug.SetPanicOnFault(true))
	m.head.bell.Or(bellArmed)
	m.head.ring()
}

// waitFor sleeps until the version has moved.
func (s *Segment) waitFor(ctx context.Context, since uint32) (uint32, error) {
	h := s.head
	for spins := 0; ; {
		b := h.bell.Load()
		if b&bellArmed == 0 && spins >= maxSpins {
			fault("arm")
			if !h.bell.CompareAndSwap(b, b|bellArmed) { // [arm]
				continue
			}
			b |= bellArmed
		}
		// After arming: who moves the version from here on sees the bell armed.
		if v := version(h.word.Load()); v != since {
			return v, nil
		}
		if err := ctx.Err(); err != nil {
			return since, err
		}
		if s.detached() {
			return since, ErrDetached
		}
		if spins < maxSpins {
			spins++
			pause()
			continue
		}
		fault("listen")
		sleep(h.bellWord(), b, bellSlice)
	}
}
