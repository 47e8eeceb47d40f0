package shm

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatMovesTheVersion(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	reader := attach(t, key, ReadOnly)
	nothing := func([]byte) error { return nil }
	own := errors.New("own")
	for _, c := range []struct {
		what  string
		call  func()
		moves uint32
	}{
		{"unlock", func() { lock(t, seg); unlock(t, seg) }, 1},
		{"unlock after TryLock", func() { seg.TryLock(); unlock(t, seg) }, 1},
		{"update", func() { seg.Update(nothing) }, 1},
		{"update that fails", func() { seg.Update(func([]byte) error { return own }) }, 1},
		{"write", func() { seg.WriteAt([]byte("x"), 0) }, 1},
		{"view", func() { seg.View(nothing) }, 0},
		{"view of a reader", func() { reader.View(nothing) }, 0},
		{"unlock of a reader", func() { lock(t, reader); unlock(t, reader) }, 0},
		{"lock alone", func() { lock(t, reader) }, 0},
		{"attach", func() { attach(t, key) }, 0},
	} {
		before := seg.Version()
		c.call()
		if moved := seg.Version() - before; moved != c.moves || reader.Version() != seg.Version() {
			t.Errorf("%s has moved the version by %d, want %d", c.what, moved, c.moves)
		}
	}
}

func TestWaitReturnsWhatHasMovedAlready(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	seg.WriteAt([]byte("x"), 0)
	if v, err := seg.Wait(context.Background(), 0); v != 1 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

func TestWaitIsWokenByAChange(t *testing.T) {
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
		listening(t, seg)
		writer.View(func([]byte) error { return nil })
		select {
		case <-result:
			t.Error("woken by a View")
		default:
		}
		writer.WriteAt([]byte("x"), 0)
		for range 3 {
			if v := <-result; v != uint32(i+1) {
				t.Errorf("version %d", v)
			}
		}
	}
}

func TestWaitIsWokenByADeath(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	runThenKill(t, "lock and die", key)
	result := make(chan error)
	go func() {
		_, err := seg.Wait(context.Background(), 0)
		result <- err
	}()
	listening(t, seg)
	lock(t, seg) // finds it out
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
		t.Errorf("version %d", v)
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
	listening(t, seg)
	cancel()
	for range 3 {
		wantError(t, <-result, "wait", key, context.Canceled)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := seg.Wait(short, 0)
	wantError(t, err, "wait", key, context.DeadlineExceeded)
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
		for seen.Load() < i { // it has to see this one before the next comes
		}
		writer.Update(func([]byte) error { return nil })
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
		t.Errorf("%v", got)
	}
}
