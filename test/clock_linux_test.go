package test

import (
	"context"
	"flag"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var moveClock = flag.Bool("clock", false, "let TestWaitingAndGarbageDoNotDependOnTheClock set the clock of the system, for some milliseconds")

// The test sets the clock while processes wait.
func TestWaitingAndGarbageDoNotDependOnTheClock(t *testing.T) {
	if !*moveClock {
		t.Skip("sets the clock of the whole machine: only with -args -clock")
	}
	for _, by := range []time.Duration{-24 * time.Hour, 24 * time.Hour} {
		t.Run(by.String(), func(t *testing.T) {
			st := newStore(t)
			a, b, c, dead := st.start(), st.start(), st.start(), st.start()
			mine, theirs, watcher := a.create("k", 64), b.attach("k"), c.attach("k")
			dead.create("left", 64)
			mine.lock()
			inTime := theirs.begin(request{Op: "lockcontext", Timeout: 100 * time.Millisecond})
			inVain := watcher.begin(request{Op: "wait", Version: watcher.version(), Timeout: 100 * time.Millisecond})
			st.awaitWaiter("k")
			setClock(t, by)

			_, err := inTime.outcome()
			wantError(t, err, context.DeadlineExceeded)
			_, err = inVain.outcome()
			wantError(t, err, context.DeadlineExceeded)
			theirs.takeOverFrom(a)
			theirs.unlock()
			dead.kill()
			left := b.create("left", 128)
			if size := left.size(); size != 128 {
				t.Errorf("the new segment has %d bytes, want 128: it is that of the dead process", size)
			}
			for _, s := range []*attachment{left, theirs, watcher} {
				s.detach()
			}
			st.wantFiles()
		})
	}
}

// setClock moves the clock of the system until the test has ended.
func setClock(t *testing.T, by time.Duration) {
	t.Helper()
	move := func(by time.Duration) error {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			return err
		}
		then := unix.NsecToTimespec(now.Nano() + int64(by))
		return unix.ClockSettime(unix.CLOCK_REALTIME, &then)
	}
	if err := move(by); err != nil {
		t.Skip("the clock cannot be set:", err)
	}
	t.Cleanup(func() {
		if err := move(-by); err != nil {
			t.Error("the clock is wrong now: ", err)
		}
	})
}
