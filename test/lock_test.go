package test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"qshm/shm"
)

// The lock between processes, and what stopping and killing them does to it.

func TestLockExcludes(t *testing.T) {
	n := 400_000
	if testing.Short() {
		n = 100_000
	}
	for _, by := range []struct {
		name       string
		processes  int
		attached   int // in each process
		goroutines int // on each attachment
		op         string
	}{
		{"goroutines", 1, 1, 4, "count"},
		{"attachments of a process", 1, 4, 1, "count"},
		{"processes", 4, 1, 1, "count"},
		{"all of them", 3, 2, 2, "count"},
		{"updates", 3, 2, 2, "countupdates"},
	} {
		t.Run(by.name, func(t *testing.T) {
			st := newStore(t)
			keep := st.start().create("k", 64)
			var calls []*pending
			each := n / (by.processes * by.attached * by.goroutines)
			for _, p := range st.startN(by.processes) {
				for range by.attached {
					s := p.attach("k")
					for range by.goroutines {
						calls = append(calls, s.begin(request{Op: by.op, N: each}))
					}
				}
			}
			for _, c := range calls {
				c.must()
			}
			want := uint64(each * len(calls))
			if got := binary.NativeEndian.Uint64([]byte(keep.read(0, 8))); got != want {
				t.Errorf("counted %d, want %d: two attachments held the lock at once", got, want)
			}
			if v := keep.version(); v != uint32(want) {
				t.Errorf("version %d, want %d", v, want)
			}
		})
	}
}

func TestLockOfAKilledOwnerIsAbandoned(t *testing.T) {
	for _, how := range []string{"lock", "lockcontext", "trylock", "update", "writeat"} {
		t.Run(how, func(t *testing.T) {
			st := newStore(t)
			a, b, c := st.start(), st.start(), st.start()
			mine, theirs, third := a.create("k", 64), b.attach("k"), c.attach("k")
			mine.lock()
			mine.poke(0, "half")
			before := theirs.version()
			a.kill()
			switch a := theirs.do(request{Op: how, Timeout: patience, Data: []byte("!")}); how {
			case "trylock":
				if !a.OK {
					t.Fatal("TryLock does not take the lock over from a dead owner")
				}
				fallthrough
			case "lock", "lockcontext":
				if !theirs.abandoned() {
					t.Error("Abandoned is false after the owner's death, want true")
				}
				if third.abandoned() {
					t.Error("Abandoned is true for an attachment that does not hold the lock")
				}
				theirs.unlock()
			}
			if v := theirs.version(); v != before+2 {
				t.Errorf("the version has moved by %d, want 2: by the take-over and by the unlock", v-before)
			}
			third.lock()
			if third.abandoned() {
				t.Error("Abandoned is still true after a writer has unlocked")
			}
			third.unlock()
		})
	}
}

func TestWaiterTakesOverFromAKilledOwner(t *testing.T) {
	st := newStore(t)
	a, b, c := st.start(), st.start(), st.start()
	mine, theirs, third := a.create("k", 64), b.attach("k"), c.attach("k")
	mine.lock()
	one, two := theirs.goLock(), third.goLock()
	st.awaitWaiter("k")
	a.kill()
	// Abandoned is true for the waiter that takes over, and not for the one after it.
	first, second := theirs, third
	select {
	case x := <-one.answer:
		one.got = &x
	case x := <-two.answer:
		two.got = &x
		first, second = third, theirs
	case <-time.After(patience):
		t.Fatal("no waiter takes over from the dead owner")
	}
	if !first.abandoned() {
		t.Error("Abandoned is false for the waiter that has taken over")
	}
	first.unlock()
	one.must()
	two.must()
	if second.abandoned() {
		t.Error("Abandoned is still true after the first waiter has unlocked")
	}
	second.unlock()
}

// A read-only attachment cannot have repaired the data.
func TestAbandonedLastsUntilAWriterUnlocks(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine := a.create("k", 64)
	reader, writer := b.attach("k", opts{ReadOnly: true}), b.attach("k")
	mine.lock()
	a.kill()
	for range 2 {
		reader.lock()
		if !reader.abandoned() {
			t.Error("the unlock of a read-only attachment has reset Abandoned")
		}
		reader.unlock()
	}
	_, err := reader.try(request{Op: "snapshot", N: 64})
	wantError(t, err, shm.ErrAbandoned)
	writer.lock()
	if !writer.abandoned() {
		t.Error("Abandoned is false for the writer")
	}
	writer.unlock()
	reader.do(request{Op: "snapshot", N: 64})
}

func TestStoppedOwnerKeepsTheLock(t *testing.T) {
	st := newStore(t)
	a, b, c := st.start(), st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	other := c.attach("k")
	mine.lock()
	a.stop()
	waiting := other.goLock() // asks several times whether the owner is alive
	for range 10 {
		theirs.wantHeld()
		b.sweep()
		b.attach("k").detach()
	}
	if info := b.stat("k"); info.Owner == nil || info.Owner.PID != a.pid {
		t.Errorf("the owner is %v, want process %d", info.Owner, a.pid)
	}
	if waiting.done() {
		t.Fatal("Lock has taken the lock from a stopped owner")
	}
	a.cont()
	mine.unlock() // an error, unless it is still the owner
	waiting.must()
	if other.abandoned() {
		t.Error("Abandoned is true after the stopped owner has unlocked")
	}
	other.unlock()
}

// A process that is stopped or killed while it waits for the lock delays neither
// other waiters nor later callers.
func TestStoppedOrKilledWaiterDelaysNoOther(t *testing.T) {
	for _, end := range []struct {
		name string
		of   func(*proc)
	}{
		{"stopped", func(p *proc) { p.stop() }},
		{"killed", func(p *proc) { p.kill() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			st := newStore(t)
			a, b, c, d := st.start(), st.start(), st.start(), st.start()
			mine := a.create("k", 64)
			s, waiter, later := b.attach("k"), c.attach("k"), d.attach("k")
			mine.lock()
			s.goLock()
			st.awaitWaiter("k")
			waits := waiter.goLock()
			end.of(b)
			defer b.cont()
			mine.unlock()
			waits.must()
			waiter.unlock()
			for range 3 {
				later.lock()
				later.unlock()
				mine.lock()
				mine.unlock()
			}
			if end.name == "stopped" {
				b.kill() // it may have got the lock just before it stopped
			}
		})
	}
}

func TestTryLockAfterAWaiterGaveUpOrDied(t *testing.T) {
	for _, end := range []string{"gave up", "killed"} {
		t.Run(end, func(t *testing.T) {
			st := newStore(t)
			a, b := st.start(), st.start()
			mine := a.create("k", 64)
			theirs := b.attach("k")
			mine.lock()
			w := theirs.begin(request{Op: "lockcontext"})
			st.awaitWaiter("k")
			if end == "killed" {
				b.kill()
			} else {
				w.cancel()
				_, err := w.outcome()
				wantError(t, err, context.Canceled)
			}
			mine.unlock()
			if !mine.tryLock() {
				t.Error("TryLock has not taken a free lock")
			}
		})
	}
}

func TestLockWaitEndsWithItsContext(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	mine.lock()
	wantError(t, theirs.lockWithin(time.Millisecond), context.DeadlineExceeded)
	w := theirs.begin(request{Op: "lockcontext"})
	st.awaitWaiter("k")
	second := theirs.begin(request{Op: "lockcontext"}) // the first waiter of its process sleeps for it
	second.cancel()
	_, err := second.outcome()
	wantError(t, err, context.Canceled)
	w.cancel()
	_, err = w.outcome()
	wantError(t, err, context.Canceled)
	// The cancelled waits delay neither the owner nor the next caller.
	mine.unlock()
	theirs.lock()
	theirs.unlock()
}

func TestDetachEndsTheWaitsOfItsProcess(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	mine.lock()
	calls := []*pending{theirs.goLock(), theirs.goLock(), theirs.begin(request{Op: "update", Data: []byte("x")}),
		theirs.begin(request{Op: "wait", Version: mine.version()})}
	st.awaitWaiter("k")
	st.awaitWatcher("k")
	theirs.detach()
	for _, c := range calls {
		_, err := c.outcome()
		wantError(t, err, shm.ErrDetached)
	}
	if n := a.stat("k").Attached; n != 1 {
		t.Errorf("%d attached, want 1", n)
	}
	mine.unlock()
}

func TestDetachReleasesTheLock(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	mine.lock()
	w := theirs.goLock()
	st.awaitWaiter("k")
	mine.detach()
	w.must()
	if theirs.abandoned() {
		t.Error("Abandoned is true after the owner has detached")
	}
}

// Processes that take the lock in tight loops share it.
func TestNoProcessStarves(t *testing.T) {
	for _, n := range []int{2, 5} {
		total, least := 10_000_000, 3_000_000 // many times the turns until a waiter is starving
		if testing.Short() || n > 2 {
			total, least = 3_000_000, 3_000_000/(10*n) // too few turns for equal shares
		}
		st := newStore(t)
		procs := st.startN(n)
		procs[0].create("k", 64)
		calls := beginAtOnce(procs, func(i int) request {
			return request{Op: "turns", Handle: procs[i].attach("k").handle, N: total}
		})
		share := make([]int, n)
		for i, c := range calls {
			share[i] = c.must().N
		}
		t.Logf("turns of %d: %v", n, share)
		for _, turns := range share {
			if turns < least {
				t.Errorf("a process got %d of %d turns, want at least %d: %v", turns, total, least, share)
			}
		}
	}
}
