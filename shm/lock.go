package shm

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"qshm/shm/internal/failpoint"
	"qshm/shm/internal/race"
	"qshm/shm/internal/spin"
)

// The segment lock is one 64-bit word in the header. An uncontended Lock or Unlock
// is one compare-and-swap. Otherwise a waiter sleeps on the word, and Unlock wakes
// one waiter. Waiters do not queue: a stopped or killed waiter delays nobody,
// because every sleep is bounded and every waiter checks the word for itself.
//
// Fairness: a waiter that has waited for more than a millisecond sets the starving
// bit. From then on only a starving waiter may take the lock, so a process that
// unlocks and locks again at once cannot starve the others. sync.Mutex does the
// same.
//
// If the process that owns the lock has died, a waiter takes the lock over. The
// data may be half-written, so the word is marked abandoned: every owner is told,
// until one has unlocked that was allowed to write.
//
// The steps in brackets are those of test/models/lock.pml.

// The lock word:
//
//	63      32 31       30        29         28    16 15     0
//	  version   waiters  starving  abandoned  detached  owner
//
// The version counts unlocks that may have written, and deaths of owners. The owner
// is its slot + 1; 0: the lock is free. Each Detach adds one to detached, see
// releaseLast, and so does a process that clears the slot of a dead one; everything
// else keeps these bits. So the word changes for good before another attachment can
// have the same slot.
const (
	ownerMask    = 1<<16 - 1
	detachOne    = 1 << 16
	detachMask   = 1<<29 - 1<<16
	abandonedBit = 1 << 29
	starvingBit  = 1 << 30 // only a starving waiter may take the word
	waitersBit   = 1 << 31 // a waiter may be asleep on the word
	versionOne   = 1 << 32
)

func ownerBits(i int) uint64 { return uint64(i + 1) }

// ownerSlot returns which slot owns the word; -1: none.
func ownerSlot(w uint64) int { return int(w&ownerMask) - 1 }

func version(w uint64) uint32 { return uint32(w >> 32) }

func countDetach(w uint64) uint64 { return w&^detachMask | (w+detachOne)&detachMask }

const (
	// A waiter is starving after this time.
	starvingAfter = time.Millisecond
	// A waiter that was woken in vain, because another process had taken the lock
	// again by then, does not ask to be woken for this time. What the others get
	// done in it, before a waiter is starving, is the throughput.
	lockBackoff = 250 * time.Microsecond
	// How often a waiter asks whether the owner is alive: at first, and at least.
	// In between, after a quarter of the time that it has waited.
	firstProbe = 25 * time.Millisecond
	lastProbe  = 2 * time.Second
)

// Lock takes the lock of the segment. There is one, exclusive between all
// attachments and all goroutines of all processes. Lock waits for as long as a
// live process holds it; a stopped process is alive. If the owner dies, a waiter
// takes the lock over within about 25 milliseconds, and Abandoned reports it. A
// waiter that has waited longer than 100 milliseconds takes up to a quarter of that
// time more, two seconds at most. A process whose memory is being written to a core
// file is not dead yet.
//
// Taking a free lock makes no system call. Waiting for the lock takes one
// operating-system thread in each process, however many goroutines wait.
//
// The lock belongs to the attachment, not to the goroutine: any goroutine may
// unlock. Locking twice waits for ever, as a sync.Mutex does.
//
// Errors: ErrDetached; ErrCorrupt if another program truncates the file to nothing
// while Lock waits.
func (s *Segment) Lock() error {
	if s.tryFast() {
		return nil
	}
	return s.lockSlow(context.Background(), "lock")
}

// LockContext is Lock that gives up when the context ends, with an error that
// wraps the context's and says which process holds the lock. It does not return
// before a deadline unless it has the lock, and on Windows up to 16 milliseconds
// after it.
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

// TryLock takes the lock if that is possible at once, also from an owner that has
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

// tryFast takes an uncontended lock. What it costs is what locking costs.
//
// A Detach in another goroutine can come between the two looks at detached. If it
// has released the lock before the swap, the swap fails, because releaseLast has
// changed the word; or the swap meets the memory that replaces the header.
func (s *Segment) tryFast() bool {
	if !headerOutlivesDetach {
		return false
	}
	w := s.head.word.Load()
	if w&(ownerMask|starvingBit) != 0 || s.detached() || !s.head.word.CompareAndSwap(w, w|s.owner) { // [fast]
		return false
	}
	failpoint.At("fast")
	if s.detached() {
		return false
	}
	s.m.race.Acquire()
	if !race.Enabled {
		s.lastAcquired = w | s.owner
	}
	return true
}

// tryTake takes the word if it is free or its owner dead, whether a waiter is
// starving or not: that one may have died or given up. The starving bit stays, so
// that a live starving waiter comes before the next Lock.
func (s *Segment) tryTake() bool {
	for {
		w := s.head.word.Load()
		if w&ownerMask != 0 {
			if !s.m.takeOver(w, s.owner) {
				return false
			}
		} else if !s.head.word.CompareAndSwap(w, w|s.owner) {
			continue
		}
		s.m.race.Acquire()
		return true
	}
}

// lockSlow waits for the lock.
func (s *Segment) lockSlow(ctx context.Context, op string) (err error) {
	if !s.enter() {
		return fail(op, s.key, ErrDetached)
	}
	defer s.finishCall(op, debug.SetPanicOnFault(true), &err)
	start := time.Now()
	select {
	case s.m.locker <- struct{}{}:
	default:
		select {
		case s.m.locker <- struct{}{}:
		case <-s.detachedCh:
			return fail(op, s.key, ErrDetached)
		case <-ctx.Done():
			return s.gaveUp(op, ctx.Err())
		}
	}
	defer func() { <-s.m.locker }()
	if err := s.await(ctx, start); err != nil {
		return s.gaveUp(op, err)
	}
	s.m.race.Acquire()
	return nil
}

// gaveUp adds to an error of waiting which process holds the lock.
func (s *Segment) gaveUp(op string, err error) error {
	w := s.head.word.Load()
	switch i := ownerSlot(w); {
	case errors.Is(err, ErrDetached):
	case w&ownerMask == s.owner:
		err = fmt.Errorf("%w while this attachment itself holds the lock", err)
	case i >= 0 && i < len(s.m.slot):
		err = fmt.Errorf("%w while process %d holds the lock", err, s.m.slot[i].Load()&slotPID)
	}
	return fail(op, s.key, err)
}

// await takes the word, sleeping on it as long as it has to.
func (s *Segment) await(ctx context.Context, start time.Time) error {
	h := s.head
	deadline, hasDeadline := ctx.Deadline()
	var (
		spins     int
		slept     bool
		starving  bool
		woken     bool // a wake ended the last sleep
		owesWake  bool // a wake was received since this waiter has asked for one
		backedOff bool // the last sleep was a backoff
		watched   *watch
		probed    = start // when the owner was last known to be alive
		interval  = firstProbe
	)
	defer func() { s.unwatch(watched) }()
	for {
		ticket := s.m.lockWord.Ticket()
		w := h.word.Load()
		if w&ownerMask == 0 && (starving || w&starvingBit == 0) {
			n := w&^starvingBit | s.owner
			if slept {
				n |= waitersBit // other waiters may sleep too, and need an unlock that wakes
			}
			if h.word.CompareAndSwap(w, n) { // [take]
				failpoint.At("taken")
				return nil
			}
			continue
		}
		if spins < maxSpins {
			spins++
			spin.Pause()
			continue
		}
		if watched == nil {
			watched = s.watch(ctx)
		}
		now := time.Now()
		err := ctx.Err()
		switch {
		case err == nil && hasDeadline && !now.Before(deadline):
			err = context.DeadlineExceeded // the context's own timer is a little late
		case err == nil && s.detached():
			err = ErrDetached
		}
		if err != nil { // [give_up]
			h.word.And(^uint64(starvingBit)) // other starving waiters set it again
			if owesWake {
				s.m.lockWord.Wake() // another waiter may need it
			}
			return err
		}
		if w&ownerMask != 0 && now.Sub(probed) >= interval {
			probed, interval = now, min(max(now.Sub(start)/4, firstProbe), lastProbe)
			if s.m.takeOver(w, s.owner) {
				return nil
			}
		}
		limit := lockBackoff
		backedOff = woken && w&ownerMask != 0 && !backedOff
		if !backedOff {
			n := w | waitersBit
			limit = starvingAfter - now.Sub(start)
			if starving = limit <= 0; starving {
				n |= starvingBit
				limit = probed.Add(interval).Sub(now)
			}
			failpoint.At("mark")
			if n != w && !h.word.CompareAndSwap(w, n) { // [mark]
				continue
			}
			owesWake = false
			if w = n; woken && w&ownerMask == 0 && !starving {
				s.m.lockWord.Wake() // the word was left for a starving waiter
			}
		}
		if hasDeadline {
			limit = min(limit, deadline.Sub(now))
		}
		failpoint.At("sleep")
		woken = s.m.lockWord.Sleep(ticket, uint32(w), limit) // [sleep]
		failpoint.At("woken")
		slept, spins, owesWake = true, 0, owesWake || woken
		starving = time.Since(start) >= starvingAfter
	}
}

// Unlock releases the lock. It moves the version, unless the attachment is
// read-only: other processes must assume that the data have changed.
//
// Errors: ErrNotLocked, ErrDetached.
func (s *Segment) Unlock() error {
	if !headerOutlivesDetach {
		if !s.enter() {
			return fail("unlock", s.key, ErrDetached)
		}
		defer s.leave()
	}
	// If no other process has touched the word since it was taken, this is the word.
	if w := s.lastAcquired; headerOutlivesDetach && w&(ownerMask|waitersBit|abandonedBit) == s.owner {
		failpoint.At("unlock")
		if s.head.word.CompareAndSwap(w, w&^ownerMask+s.step) { // [unlock]
			if s.step != 0 && s.head.event.Load()&eventArmed != 0 {
				s.m.signal()
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
// written, the version moves, waiters for it are woken, and what a dead writer left
// counts as repaired. If this writer broke off, its data are as doubtful.
//
// A process that dies right after the swap has woken no waiter: sleeps are bounded.
func (s *Segment) unlock(written, brokenOff bool) bool {
	return s.swapUnlocked(written, brokenOff, false)
}

func (s *Segment) swapUnlocked(written, brokenOff, detaching bool) bool {
	h := s.head
	s.m.race.Release()
	for {
		w := h.word.Load()
		owned := w&ownerMask == s.owner
		if !owned && !detaching {
			return false
		}
		n := w
		if detaching {
			n = countDetach(w)
		}
		if owned {
			n &^= ownerMask | waitersBit
			if written {
				n = n&^abandonedBit + versionOne
			}
			if brokenOff {
				n |= abandonedBit
			}
		}
		failpoint.At("unlock")
		if !h.word.CompareAndSwap(w, n) { // [unlock] [release_word]
			continue
		}
		failpoint.At("wake")
		if owned && w&waitersBit != 0 {
			s.m.lockWord.Wake() // [wake]
		}
		if owned && written {
			s.m.signal()
		}
		runtime.KeepAlive(s.m)
		return owned
	}
}

// releaseLast releases the lock for good, if this attachment holds it. It changes
// the word in any case, before the slot can be another process's: a goroutine that
// has read the word before, in tryFast, and has not seen that the attachment is
// detached, fails to take the lock then; and so does a take-over that has found the
// slot not held.
func (s *Segment) releaseLast() {
	defer s.m.ignoreFault(debug.SetPanicOnFault(true))
	s.swapUnlocked(!s.readOnly, false, true)
}

// Abandoned reports, while this attachment holds the lock, whether the last writer
// before it died while it held the lock: the data may be half-written. Each owner
// is told, until one has unlocked that was allowed to write.
func (s *Segment) Abandoned() bool {
	if !headerOutlivesDetach {
		if !s.enter() {
			return false
		}
		defer s.leave()
	}
	w := s.head.word.Load()
	runtime.KeepAlive(s.m)
	return w&ownerMask == s.owner && w&abandonedBit != 0
}
