package shm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"qshm/lockfile"
)

// This file is the lock of a segment: one word in the header. The steps named in
// brackets are those of test/models/lock.pml.
//
// Free to mine is one compare-and-swap, and so is mine to free. Who finds the
// word taken sleeps on it; unlock wakes one sleeper. There is no queue to stand
// in, so a waiter that is stopped or killed holds up nobody: sleeps are bounded,
// and each sleeper looks after itself.
//
// What keeps order is being overdue. A waiter of more than a millisecond marks
// the word, and the next to take it must then be overdue itself: whoever unlocks
// and locks again at once has to let the others in between.
//
// If the owner's process has died, a waiter takes the word over. It is told that
// the lock was abandoned, since the data may be half-written, and so is everybody
// after it until one has unlocked that may have repaired them.

// The lock word:
//
//	63        32 31      30      29        28       16 15        0
//	  version    waiters overdue abandoned  generation  slot + 1
//
// The version counts unlocks that may have written. Slot and generation are the
// owner's, and zero if nobody is.
const (
	slotBits     = 16
	ownerMask    = 1<<(slotBits+genBits) - 1
	abandonedBit = 1 << 29
	overdueBit   = 1 << 30 // only a waiter that is overdue may take the word
	waitersBit   = 1 << 31 // somebody may be asleep on it
	versionOne   = 1 << 32
)

func ownerBits(i int, gen uint32) uint64 { return uint64(i+1) | uint64(gen)<<slotBits }

func owner(w uint64) uint64 { return w & ownerMask }

// ownerSlot returns which slot, of which generation, owns the word.
func ownerSlot(w uint64) (i int, gen uint32, ok bool) {
	return int(w&(1<<slotBits-1)) - 1, uint32(owner(w) >> slotBits), owner(w) != 0
}

const (
	// A waiter is overdue after this time.
	overdueAfter = time.Millisecond
	// A waiter that was woken in vain, because somebody had taken the lock again
	// by then, leaves those who hammer at it alone for this time. How much they
	// get done in it, before a wait is overdue, is the throughput.
	lockNap = 250 * time.Microsecond
	// How long a waiter sleeps before it looks whether the owner is alive.
	lockSlice = 25 * time.Millisecond
)

// Lock takes the lock of the segment. There is one, exclusive between all
// attachments and all goroutines of all processes. Lock waits for as long as a
// live process holds it; a stopped process is alive. If the owner dies, the lock
// is taken over within about 25 milliseconds, and Abandoned reports it.
//
// Taking a free lock makes no system call. Waiting holds an operating-system
// thread, one in each process.
//
// The lock belongs to the attachment, not to the goroutine: any goroutine may
// unlock. Locking twice waits for ever, as a sync.Mutex does.
//
// Errors: ErrDetached; ErrCorrupt if somebody truncates the file to nothing while
// Lock waits.
func (s *Segment) Lock() error {
	if s.tryFast() {
		return nil
	}
	return s.lockSlow(context.Background(), "lock")
}

// LockContext is Lock that gives up when the context ends, with an error that
// wraps the context's and says who holds the lock. A deadline is kept exactly,
// on Windows to a tick of its clock, 16 milliseconds; a cancellation is noticed
// within 25 milliseconds.
//
// Errors: ErrDetached, ErrCorrupt as Lock, and the context's.
func (s *Segment) LockContext(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fail("lock", s.key, err)
	}
	if s.tryFast() {
		return nil
	}
	return s.lockSlow(ctx, "lock")
}

// TryLock takes the lock if that can be had at once, also from an owner that has
// died, and reports whether it has.
//
// Errors: ErrDetached.
func (s *Segment) TryLock() (bool, error) {
	if s.tryFast() {
		return true, nil
	}
	if !s.enter() {
		return false, fail("lock", s.key, ErrDetached)
	}
	defer s.leave()
	return s.tryTake(), nil
}

// tryFast is the way of an uncontended lock. What it costs is what locking costs.
func (s *Segment) tryFast() bool {
	if !tombs {
		return false // the header may be gone
	}
	w := s.head.word.Load()
	return w&(ownerMask|overdueBit) == 0 && !s.detached() && s.head.word.CompareAndSwap(w, w|s.mine) && s.took(w)
}

// took confirms that the word w was taken by tryFast.
func (s *Segment) took(w uint64) bool {
	fault("taken")
	if s.detached() {
		// Detach came between. What was taken is the word of a tomb, or, if
		// Detach has not come that far, one that no waiter respects: the slot is
		// given back, or about to be. Put it back all the same.
		s.putBack()
		return false
	}
	s.m.race.acquire()
	if !raceDetector {
		s.held = w | s.mine
	}
	return true
}

func (s *Segment) putBack() {
	h := s.head
	for w := h.word.Load(); owner(w) == s.mine; w = h.word.Load() {
		if h.word.CompareAndSwap(w, w&^(ownerMask|waitersBit)) {
			if w&waitersBit != 0 {
				wake(h.lockHalf(), 1)
			}
			break
		}
	}
	runtime.KeepAlive(s.m)
}

// tryTake takes the word if it is free or its owner dead, out of turn: the
// waiter that has marked the word as overdue may have been killed, or given up.
// The mark stays, so that one that is alive has its turn before those who Lock.
func (s *Segment) tryTake() bool {
	for {
		w := s.head.word.Load()
		if owner(w) == 0 {
			if s.head.word.CompareAndSwap(w, w|s.mine) {
				s.m.race.acquire()
				return true
			}
			continue
		}
		taken := s.m.takeOver(w, s.mine, s.a.h.dir)
		if taken {
			s.m.race.acquire()
		}
		return taken
	}
}

// takeOver takes the word w from an owner that has died [take over].
func (m *mapping) takeOver(w, mine uint64, dir string) bool {
	if owner(w) == 0 || m.ownerAlive(w, dir) {
		return false
	}
	fault("take over")
	if !m.head.word.CompareAndSwap(w, (w+versionOne)&^(ownerMask|overdueBit)|mine|abandonedBit|waitersBit) {
		return false
	}
	fault("taken over")
	m.head.ring()
	return true
}

// ownerAlive reports whether the process that owns the word is alive, and still
// has the slot that the word names.
func (m *mapping) ownerAlive(w uint64, dir string) bool {
	i, gen, _ := ownerSlot(w)
	if i < 0 || i >= len(m.slot) { // a word that nobody of us wrote
		return false
	}
	token := m.slot[i].token.Load()
	return token != 0 && metaGen(m.slot[i].meta.Load()) == gen && lockfile.Alive(dir, token)
}

// disown takes the word away from an owner that has died, if it has it, and leaves
// it free and abandoned.
func (h *header) disown(dead uint64) {
	for w := h.word.Load(); owner(w) == dead; w = h.word.Load() {
		if h.word.CompareAndSwap(w, (w+versionOne)&^(ownerMask|waitersBit)|abandonedBit) {
			fault("disowned")
			if w&waitersBit != 0 {
				wake(h.lockHalf(), 1)
			}
			h.ring()
			return
		}
	}
}

// lockSlow waits for the lock.
func (s *Segment) lockSlow(ctx context.Context, op string) (err error) {
	if !s.enter() {
		return fail(op, s.key, ErrDetached)
	}
	defer s.done(op, debug.SetPanicOnFault(true), &err)
	start := time.Now()
	// One goroutine of a process waits for the others' sake at a time, so that
	// many who wait hold one thread.
	select {
	case s.m.turn <- struct{}{}:
	default:
		select {
		case s.m.turn <- struct{}{}:
		case <-s.gone:
			return fail(op, s.key, ErrDetached)
		case <-ctx.Done():
			return s.gaveUp(op, ctx.Err())
		}
	}
	defer func() { <-s.m.turn }()
	if err := s.await(ctx, start); err != nil {
		return s.gaveUp(op, err)
	}
	s.m.race.acquire()
	return nil
}

// gaveUp says for whom we have waited in vain.
func (s *Segment) gaveUp(op string, err error) error {
	i, _, held := ownerSlot(s.head.word.Load())
	if held && i >= 0 && i < len(s.m.slot) && !errors.Is(err, ErrDetached) {
		err = fmt.Errorf("%w while process %d holds the lock", err, metaPID(s.m.slot[i].meta.Load()))
	}
	return fail(op, s.key, err)
}

// await takes the word, sleeping on it as long as it has to.
func (s *Segment) await(ctx context.Context, start time.Time) error {
	h := s.head
	deadline, hasDeadline := ctx.Deadline()
	var (
		spins   int
		slept   bool
		overdue bool
		woken   bool // the last sleep ended with a wake
		napped  bool // the last sleep was a nap
	)
	for {
		w := h.word.Load()
		if owner(w) == 0 && (overdue || w&overdueBit == 0) { // [take]
			n := w&^overdueBit | s.mine
			if slept {
				n |= waitersBit // others may sleep too, and somebody has to wake them
			}
			if h.word.CompareAndSwap(w, n) {
				fault("taken after waiting")
				return nil
			}
			continue
		}
		if spins < maxSpins {
			spins++
			pause()
			continue
		}
		now := time.Now()
		limit := lockNap
		napped = woken && owner(w) != 0 && !napped
		if !napped {
			n := w | waitersBit
			limit = overdueAfter - now.Sub(start)
			if overdue = limit <= 0; overdue {
				n |= overdueBit
				limit = lockSlice
			}
			fault("mark")
			if n != w && !h.word.CompareAndSwap(w, n) { // [mark]
				continue
			}
			if w = n; woken && owner(w) == 0 && !overdue {
				wake(h.lockHalf(), 1) // the word was left for one who is
			}
		}
		if hasDeadline {
			limit = min(limit, deadline.Sub(now))
		}
		err := ctx.Err()
		switch {
		case err == nil && limit <= 0:
			err = context.DeadlineExceeded // the context's own timer is a little late
		case err == nil && s.detached():
			err = ErrDetached
		}
		if err != nil { // [give up]
			h.word.And(^uint64(overdueBit)) // others who are overdue will mark the word again
			if slept {
				wake(h.lockHalf(), 1) // the wake that woke us was perhaps meant to let somebody in
			}
			return err
		}
		fault("sleep")
		timedOut := sleep(h.lockHalf(), uint32(w), limit) // [sleep]
		fault("woken")
		slept, spins, woken = true, 0, !timedOut
		overdue = time.Since(start) >= overdueAfter
		if timedOut && s.m.takeOver(h.word.Load(), s.mine, s.a.h.dir) {
			return nil
		}
	}
}

// Unlock releases the lock. It moves the version on, unless the attachment is
// read-only: others must assume that the data have changed.
//
// Errors: ErrNotLocked, ErrDetached.
func (s *Segment) Unlock() error {
	if !tombs {
		if !s.enter() {
			return fail("unlock", s.key, ErrDetached)
		}
		defer s.leave()
	}
	// If nobody has touched the word since it was taken, that is how it looks.
	if w := s.held; tombs && w&(ownerMask|waitersBit|abandonedBit) == s.mine {
		fault("unlock")
		if s.head.word.CompareAndSwap(w, w&^ownerMask+s.step) { // [unlock]
			if s.step != 0 && s.head.bell.Load()&bellArmed != 0 {
				s.head.ring()
			}
			runtime.KeepAlive(s.m)
			return nil
		}
	}
	if s.unlock(!s.readOnly, false) {
		return nil
	}
	if s.detached() {
		return fail("unlock", s.key, ErrDetached)
	}
	return fail("unlock", s.key, fmt.Errorf("%w by this attachment; lock it first", ErrNotLocked))
}

// unlock frees the word if this attachment owns it. If the data may have been
// written the version moves on, and whoever waits for that is woken; what a
// writer left behind that died counts as repaired. If this writer broke off, its
// data are as doubtful.
//
// Whoever dies right after the swap has woken nobody: sleeps are bounded.
func (s *Segment) unlock(written, brokenOff bool) bool {
	h := s.head
	s.m.race.release()
	for {
		w := h.word.Load()
		if owner(w) != s.mine {
			return false
		}
		n := w &^ (ownerMask | waitersBit)
		if written {
			n = n&^abandonedBit + versionOne
		}
		if brokenOff {
			n |= abandonedBit
		}
		fault("unlock")
		if !h.word.CompareAndSwap(w, n) { // [unlock]
			continue
		}
		fault("wake one")
		if w&waitersBit != 0 {
			wake(h.lockHalf(), 1) // [wake one]
		}
		if written {
			h.ring()
		}
		runtime.KeepAlive(s.m)
		return true
	}
}

// Abandoned reports, while this attachment holds the lock, whether the last
// writer before died inside it: the data may be half-written. It keeps being
// reported, to one owner after the other, until one has unlocked that was
// allowed to write.
func (s *Segment) Abandoned() bool {
	if !tombs {
		if !s.enter() {
			return false
		}
		defer s.leave()
	}
	w := s.head.word.Load()
	runtime.KeepAlive(s.m)
	return owner(w) == s.mine && w&abandonedBit != 0
}
