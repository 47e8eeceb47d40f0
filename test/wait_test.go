package test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"qshm/shm"
)

// Wait, UpdateWhen and Snapshot: a waiter misses no change, and a copy is never torn.

func init() {
	// fill sets all bytes to one value, and then to the next, until the gate opens.
	extra["fill"] = func(c *child, _ context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for ; ; a.N++ {
			select {
			case <-c.gate:
				return nil
			default:
			}
			err := s.Update(func(data []byte) error {
				for i := range data {
					data[i] = byte(a.N)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
	}
	// work takes jobs one by one until their number, at offset 0, is negative.
	extra["work"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for over := false; !over; {
			err := s.UpdateWhen(ctx,
				func(data []byte) bool { return *word(data) != 0 },
				func(data []byte) error {
					if over = int64(*word(data)) < 0; !over {
						*word(data)--
						a.N++
					}
					return nil
				})
			if err != nil {
				return err
			}
		}
		return nil
	}
	// dieinupdatewhen dies in the function of an UpdateWhen.
	extra["dieinupdatewhen"] = func(c *child, ctx context.Context, r request, a *answer) error {
		return c.segment(r.Handle).UpdateWhen(ctx,
			func(data []byte) bool { return data[0] == 1 },
			func(data []byte) error {
				data[0] = 2
				die()
				return nil
			})
	}
	// isabandoned waits until byte 0 is 2, and returns what Abandoned reports then.
	extra["isabandoned"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		return s.UpdateWhen(ctx,
			func(data []byte) bool { return data[0] == 2 },
			func(data []byte) error {
				a.OK = s.Abandoned()
				return nil
			})
	}
	// updatewhen waits until the number at offset 0 is positive, and takes one from it. It
	// returns how often it looked.
	extra["updatewhen"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		return s.UpdateWhen(ctx,
			func(data []byte) bool { a.N++; return *word(data) > 0 },
			func(data []byte) error { *word(data)--; return nil })
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
			t.Fatalf("Wait returns version %d, want %d", got, v+1)
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
		t.Errorf("Wait for a change that has happened returns version %d, want %d", got, v+1)
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
	filling := mine.begin(request{Op: "fill"})
	var calls []*pending
	for _, p := range []*proc{b, c} {
		copied := p.attach("k")
		copied.begin(request{Op: "wait"}).must() // until the writer has written
		calls = append(calls, copied.begin(request{Op: "snapshots", N: n}))
	}
	for _, c := range calls {
		c.must()
	}
	mine.do(request{Op: "go"})
	if filling.must().N == 0 {
		t.Error("the writer wrote nothing while the others copied")
	}
}

// As in boost interprocess 200.
func TestDeadWaiterDoesNotBlockNotify(t *testing.T) {
	st := newStore(t)
	a, waiter, b := st.start(), st.start(), st.start()
	s := a.create("k", 64)
	w := waiter.attach("k")
	w.begin(request{Op: "wait", Version: w.version()})
	st.awaitWatcher("k")
	waiter.kill()

	before := s.version()
	s.do(request{Op: "notify"})
	s.write(0, "x")
	if now := b.attach("k").version(); now != before+2 {
		t.Errorf("the version went from %d to %d, want %d", before, now, before+2)
	}
}

func TestUpdateWhenHandsOutEachJobOnce(t *testing.T) {
	const jobs = 300
	st := newStore(t)
	queue := st.start().create("k", 64)
	var working []*pending
	for _, p := range st.startN(3) {
		s := p.attach("k")
		for range 3 { // goroutines that share an attachment
			working = append(working, s.begin(request{Op: "work"}))
		}
	}
	for range jobs {
		queue.do(request{Op: "countupdates", N: 1})
	}
	eventually(t, "taking all jobs", func() bool { return strings.Trim(queue.peek(0, 8), "\x00") == "" })
	queue.write(0, strings.Repeat("\xff", 8)) // -1: the workers return
	done := 0
	for _, w := range working {
		done += w.must().N
	}
	if done != jobs {
		t.Errorf("the workers did %d jobs, want %d", done, jobs)
	}
}

func TestUpdateWhenTakesOverFromADeadWorker(t *testing.T) {
	st := newStore(t)
	a, victim, next := st.start(), st.start(), st.start()
	s := a.create("k", 64)
	dying := victim.attach("k").begin(request{Op: "dieinupdatewhen"})
	waiting := next.attach("k").begin(request{Op: "isabandoned"})
	s.write(0, "\x01")
	if _, err := dying.outcome(); !errors.Is(err, errEnded) {
		t.Fatalf("UpdateWhen of the worker that dies in it: %v, want the end of the process", err)
	}
	if !waiting.must().OK {
		t.Error("Abandoned is false for the next worker, want true")
	}
}

func TestUpdateWhenEndsWithItsContextOrDetach(t *testing.T) {
	st := newStore(t)
	s, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	defer s.Close()
	never := func([]byte) bool { return false }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.UpdateWhen(ctx, never, nil) }()
	cancel()
	wantError(t, <-ended, context.Canceled)
	go func() { ended <- s.UpdateWhen(context.Background(), never, nil) }()
	must(t, s.Detach())
	wantError(t, <-ended, shm.ErrDetached)
}

// A worker that tests its condition does not wake the others; a change does.
func TestUpdateWhenWaitersDoNotWakeEachOther(t *testing.T) {
	st := newStore(t)
	queue := st.start().create("k", 64)
	var waiting []*pending
	for _, p := range st.startN(3) {
		waiting = append(waiting, p.attach("k").begin(request{Op: "updatewhen"}))
	}
	time.Sleep(300 * time.Millisecond)
	if version := queue.version(); version != 0 {
		t.Errorf("the version is %d after the workers looked, want 0", version)
	}
	looks := 0
	for range waiting {
		queue.do(request{Op: "countupdates", N: 1})
	}
	for _, w := range waiting {
		looks += w.must().N
	}
	// There are six changes: three here, and one by each worker.
	if most := 3 * (1 + 6); looks > most {
		t.Errorf("three workers looked %d times, want at most %d: once each at first, and after each change", looks, most)
	}
}
