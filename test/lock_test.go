package test

import (
	"context"
	"encoding/binary"
	"os"
	"testing"
	"time"

	"qshm/shm"
)

// The lock between processes, and what stopping and killing them does to it.

// The offsets of the lock word and the event word in the file, and the bits that
// show that a process waits: see shm/FORMAT.md.
const (
	wordOff     = 192
	eventOff    = 256
	starvingBit = 1 << 30
	waitersBit  = 1 << 31
	eventArmed  = 1
)

func (st *store) header(key string) []byte {
	st.t.Helper()
	file, err := os.Open(st.path(key))
	if err != nil {
		st.t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 512)
	if _, err := file.ReadAt(b[1:], 1); err != nil {
		st.t.Fatal(err)
	}
	return b
}

func (st *store) await(what string, is func(header []byte) bool, key string) {
	st.t.Helper()
	for end := time.Now().Add(patience); !is(st.header(key)); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			st.t.Fatalf("no process is %s", what)
		}
	}
}

// awaitWaiter returns when a process has waited for the lock until it was starving.
func (st *store) awaitWaiter(key string) {
	st.t.Helper()
	st.await("waiting for the lock", func(b []byte) bool {
		const both = starvingBit | waitersBit
		return binary.NativeEndian.Uint64(b[wordOff:])&both == both
	}, key)
}

// awaitWatcher returns when a process waits for the version to move.
func (st *store) awaitWatcher(key string) {
	st.t.Helper()
	st.await("waiting for the version", func(b []byte) bool {
		return binary.NativeEndian.Uint32(b[eventOff:])&eventArmed != 0
	}, key)
}

// slice is how long a test waits for a lock in vain: longer than it takes until a
// waiter asks whether the owner is alive.
const slice = 40 * time.Millisecond

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
				t.Errorf("counted %d, want %d: two held the lock at once", got, want)
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
					t.Error("Abandoned is false after the owner's death")
				}
				if third.abandoned() {
					t.Error("Abandoned is true for an attachment that does not hold the lock")
				}
				theirs.unlock()
			}
			if v := theirs.version(); v != before+2 {
				t.Errorf("the version has moved by %d, want 2: taken over, and unlocked", v-before)
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
	waiting := other.goLock() // asks again and again whether the owner is alive
	for range 10 {
		wantError(t, theirs.lockWithin(slice), context.DeadlineExceeded)
		if theirs.tryLock() {
			t.Fatal("TryLock has taken the lock from a stopped owner")
		}
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
		t.Error("a stopped owner counted as dead")
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
				t.Error("TryLock does not take a free lock")
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
	queued := theirs.begin(request{Op: "lockcontext"}) // waits for the first waiter of its process
	queued.cancel()
	_, err := queued.outcome()
	wantError(t, err, context.Canceled)
	w.cancel()
	_, err = w.outcome()
	wantError(t, err, context.Canceled)
	// The waiters have left no trace: the owner and the next caller go on.
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
		total, least := 10_000_000, 3_000_000 // many times as many as are taken until a waiter is starving
		if testing.Short() || n > 2 {
			total, least = 3_000_000, 3_000_000/(10*n) // too short to become even
		}
		st := newStore(t)
		procs := st.startN(n)
		procs[0].create("k", 64)
		var calls []*pending
		for _, p := range procs {
			calls = append(calls, p.attach("k").begin(request{Op: "turns", N: total}))
		}
		for _, p := range procs {
			p.do(request{Op: "go"})
		}
		share := make([]int, n)
		for i, c := range calls {
			share[i] = c.must().N
		}
		t.Logf("turns of %d: %v", n, share)
		for _, turns := range share {
			if turns < least {
				t.Errorf("of %d turns: %v", total, share)
			}
		}
	}
}

func TestWaitIsWokenByAChange(t *testing.T) {
	st := newStore(t)
	a, b, c := st.start(), st.start(), st.start()
	mine, theirs, dying := a.create("k", 64), b.attach("k"), c.attach("k")
	v := theirs.version()
	for range 20 {
		w := theirs.begin(request{Op: "wait", Version: v})
		dying.begin(request{Op: "wait", Version: v})
		st.awaitWatcher("k")
		mine.write(0, "x")
		if got := w.must().Version; got != v+1 {
			t.Fatalf("woken with version %d, want %d", got, v+1)
		}
		v++
	}
	w := theirs.begin(request{Op: "wait", Version: v})
	dying.begin(request{Op: "wait", Version: v})
	st.awaitWatcher("k")
	c.kill()
	mine.write(0, "y")
	w.must()
	// A change before Wait is not missed.
	if got := theirs.do(request{Op: "wait", Version: v}).Version; got != v+1 {
		t.Errorf("version %d, want %d", got, v+1)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	st := newStore(t)
	a := st.start()
	mine := a.create("k", 64)
	w := mine.begin(request{Op: "wait"})
	st.awaitWatcher("k")
	w.cancel()
	_, err := w.outcome()
	wantError(t, err, context.Canceled)
	_, err = mine.try(request{Op: "wait", Timeout: time.Millisecond})
	wantError(t, err, context.DeadlineExceeded)
}

// A process that waits for a change learns that a writer died while it held the lock.
func TestWaitIsWokenByATakeOver(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	w := theirs.begin(request{Op: "wait", Version: theirs.version()})
	st.awaitWatcher("k")
	mine.lock()
	a.kill()
	theirs.lock()
	w.must()
	theirs.unlock()
}

func TestSnapshotsAreNeverTorn(t *testing.T) {
	n := 5000
	if testing.Short() {
		n = 500
	}
	st := newStore(t)
	a, b, c := st.start(), st.start(), st.start()
	mine := a.create("k", 8192)
	var calls []*pending
	for _, p := range []*proc{b, c} {
		calls = append(calls, p.attach("k").begin(request{Op: "snapshots", N: n}))
	}
	filling := mine.begin(request{Op: "fill"})
	for _, c := range calls {
		c.must()
	}
	mine.do(request{Op: "go"})
	if filling.must().N == 0 {
		t.Error("the writer has not written meanwhile")
	}
}
