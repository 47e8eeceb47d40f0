package shm

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"qshm/shm/internal/spin"
)

func TestWhatMovesTheVersion(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	reader := attach(t, key, ReadOnly())
	own := errors.New("own")
	always := func([]byte) bool { return true }
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		what  string
		call  func()
		moves uint32
	}{
		{"unlock", func() { lock(t, seg); unlock(t, seg) }, 1},
		{"unlock after TryLock", func() { seg.TryLock(); unlock(t, seg) }, 1},
		{"update", func() { seg.Update(nothing) }, 1},
		{"update that fails", func() { seg.Update(func([]byte) error { return own }) }, 1},
		{"update when", func() { seg.UpdateWhen(t.Context(), always, nothing) }, 1},
		{"update when, ended", func() { seg.UpdateWhen(ended, always, nothing) }, 0},
		{"write", func() { seg.WriteAt([]byte("x"), 0) }, 1},
		{"write outside", func() { seg.WriteAt([]byte("x"), 8) }, 0},
		{"store", func() { Store(seg, 0, 'x') }, 1},
		{"grow", func() { seg.Grow(9) }, 0},
		{"load", func() { Load[byte](seg, 0) }, 0},
		{"view", func() { seg.View(nothing) }, 0},
		{"view of a reader", func() { reader.View(nothing) }, 0},
		{"unlock of a reader", func() { lock(t, reader); unlock(t, reader) }, 0},
		{"read", func() { seg.ReadAt(make([]byte, 8), 0) }, 0},
		{"snapshot", func() { seg.Snapshot(make([]byte, 8)) }, 0},
		{"attach and detach", func() { detach(t, attach(t, key)) }, 0},
		{"lock", func() { lock(t, reader) }, 0},
	} {
		before := seg.Version()
		c.call()
		if moved := seg.Version() - before; moved != c.moves || reader.Version() != seg.Version() {
			t.Errorf("%s has moved the version by %d, want %d", c.what, moved, c.moves)
		}
	}
}

func TestWaitReturnsAChangeOfBefore(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	seg.WriteAt([]byte("x"), 0)
	if v, err := seg.Wait(context.Background(), 0); v != 1 || err != nil {
		t.Errorf("Wait: %d, %v, want version 1", v, err)
	}
}

func TestAChangeWakesWaiters(t *testing.T) {
	store(t)
	seg, writer := create(t, key, 8), attach(t, key)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i, ctx := range []context.Context{context.Background(), ctx} {
		result := make(chan uint32)
		for range 3 {
			go func() {
				v, err := seg.Wait(ctx, uint32(i))
				if err != nil {
					t.Error(err)
				}
				result <- v
			}()
		}
		waitForListener(t, seg)
		writer.View(nothing)
		select {
		case <-result:
			t.Error("Wait has returned after a View")
		default:
		}
		writer.WriteAt([]byte("x"), 0)
		for range 3 {
			if v := <-result; v != uint32(i+1) {
				t.Errorf("Wait: version %d, want %d", v, i+1)
			}
		}
	}
}

func sleepInWaitRole(key string) error {
	seg, err := Attach(key)
	if err != nil {
		return err
	}
	go func() {
		ready()
		os.Exit(1) // the test has given up
	}()
	ticket := seg.m.eventWord.Ticket()
	for value := seg.head.event.Or(eventArmed) | eventArmed; seg.head.event.Load() == value; {
		seg.m.eventWord.Sleep(ticket, value, time.Hour)
	}
	return seg.Detach()
}

// Otherwise the next writer would make a system call for nothing.
func TestAWaiterThatSpinsDoesNotArmTheEventWord(t *testing.T) {
	if !spin.Worthwhile {
		t.Skip("a single processor")
	}
	store(t)
	seg := create(t, key, 8)
	seg.m.patience.Slept(0) // changes come often
	since := seg.Version()
	seg.Notify()
	seg.m.watcher <- struct{}{} // as waitFor does; the wait is over at the first look
	if v, err := seg.watchVersion(t.Context(), since); v != since+1 || err != nil {
		t.Errorf("version %d, %v; want %d", v, err, since+1)
	}
	if seg.head.event.Load()&eventArmed != 0 {
		t.Error("the event word is armed")
	}
}

func TestAChangeWakesAllProcesses(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	var sleepers []*exec.Cmd
	for range 3 {
		sleeper, _ := start(t, "sleep in wait", key)
		sleepers = append(sleepers, sleeper)
	}
	untilAsleep()
	seg.WriteAt([]byte("x"), 0)
	wantEnd(t, sleepers...)
}

func TestATakeOverWakesWaiters(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	runThenKill(t, "lock and die", key)
	result := make(chan error)
	go func() {
		_, err := seg.Wait(context.Background(), 0)
		result <- err
	}()
	waitForListener(t, seg)
	lock(t, seg)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestWaitWithAnEndedContextReturnsAtOnce(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := seg.Wait(ctx, 7)
	if wantError(t, err, "wait", key, context.Canceled); v != 7 {
		t.Errorf("version %d, want the one that was given", v)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	for range 3 {
		go func() {
			_, err := seg.Wait(ctx, 0)
			result <- err
		}()
	}
	waitForListener(t, seg)
	cancel()
	for range 3 {
		wantError(t, <-result, "wait", key, context.Canceled)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := seg.Wait(short, 0)
	wantError(t, err, "wait", key, context.DeadlineExceeded)
}

// The goroutine that sleeps for all of a process gives up; the others must not wait for
// it, nor miss a change.
func TestWaitGoesOnWhenAnotherWaitersContextEnds(t *testing.T) {
	store(t)
	seg, other := create(t, key, 8), attach(t, key)
	const waiters = 20
	results := make(chan error)
	var cancels []context.CancelFunc
	for i := range waiters {
		ctx, cancel := context.WithCancel(context.Background())
		cancels = append(cancels, cancel)
		go func() {
			_, err := []*Segment{seg, other}[i%2].Wait(ctx, 0)
			results <- err
		}()
	}
	waitForListener(t, seg)
	for _, cancel := range cancels[1:] {
		cancel()
		if err := <-results; !errors.Is(err, context.Canceled) {
			t.Errorf("Wait: %v, want context.Canceled", err)
		}
	}
	seg.WriteAt([]byte("x"), 0)
	if err := <-results; err != nil {
		t.Errorf("the last waiter: %v", err)
	}
	cancels[0]()
}

func TestNoChangeIsMissed(t *testing.T) {
	store(t)
	seg, writer := create(t, key, 8), attach(t, key)
	const n = 2000
	var seen atomic.Uint32
	done := make(chan error)
	go func() {
		for v := uint32(0); v < n; {
			next, err := seg.Wait(context.Background(), v)
			if err != nil {
				done <- err
				return
			}
			v = next
			seen.Store(v)
		}
		done <- nil
	}()
	for i := range uint32(n) {
		for seen.Load() < i { // the waiter has to see this change before the next one
		}
		writer.Update(nothing)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestChangesYieldsEachVersion(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []uint32
	for v, err := range seg.Changes(ctx) {
		if err != nil {
			wantError(t, err, "wait", key, context.Canceled)
			break
		}
		if got = append(got, v); len(got) == 4 {
			cancel()
			continue
		}
		seg.WriteAt([]byte("x"), 0)
	}
	if len(got) != 4 || got[0] != 0 || got[3] != 3 {
		t.Errorf("versions %v, want 0 to 3", got)
	}
}

func TestChangesOfADetachedAttachmentYieldsOneError(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	detach(t, seg)
	rounds := 0
	for _, err := range seg.Changes(t.Context()) {
		wantError(t, err, "wait", key, ErrDetached)
		rounds++
	}
	if rounds != 1 {
		t.Errorf("%d rounds, want one for the error", rounds)
	}
}
