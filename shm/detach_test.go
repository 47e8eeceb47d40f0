package shm

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestDetachEndsCallsThatWait(t *testing.T) {
	never := func([]byte) error { t.Error("the function was called"); return nil }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, c := range []struct {
		name, op string
		call     func(*Segment) error
	}{
		{"Lock", "lock", (*Segment).Lock},
		{"LockContext", "lock", func(s *Segment) error { return s.LockContext(ctx) }},
		{"Update", "update", func(s *Segment) error { return s.Update(never) }},
		{"UpdateWhen", "update", func(s *Segment) error {
			return s.UpdateWhen(ctx, func([]byte) bool { t.Error("ready was called"); return false }, never)
		}},
		{"View", "view", func(s *Segment) error { return s.View(never) }},
		{"Snapshot", "snapshot", func(s *Segment) error { _, _, err := s.Snapshot(make([]byte, 8)); return err }},
		{"ReadAt", "read", func(s *Segment) error { _, err := s.ReadAt(make([]byte, 8), 0); return err }},
		{"Load", "load", func(s *Segment) error { _, err := Load[uint64](s, 0); return err }},
		{"WriteAt", "write", func(s *Segment) error { _, err := s.WriteAt(make([]byte, 8), 0); return err }},
		{"Store", "store", func(s *Segment) error { return Store(s, 0, uint64(1)) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			store(t)
			holder, seg := create(t, key, 8), attach(t, key)
			lock(t, holder)
			result := make(chan error)
			for range 3 { // one sleeps, the others wait for it
				go func() { result <- c.call(seg) }()
			}
			waitForSleeper(t, seg)
			detach(t, seg)
			for range 3 {
				wantError(t, <-result, c.op, key, ErrDetached)
			}
		})
	}
}

func TestDetachEndsWait(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for name, c := range map[string]struct {
		op   string
		call func(*Segment) error
	}{
		"Wait":             {"wait", func(s *Segment) error { _, err := s.Wait(context.Background(), 0); return err }},
		"Wait, cancelable": {"wait", func(s *Segment) error { _, err := s.Wait(ctx, 0); return err }},
		"UpdateWhen": {"update", func(s *Segment) error {
			return s.UpdateWhen(ctx, func([]byte) bool { return false }, nothing)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			seg := create(t, key, 8)
			result := make(chan error)
			for range 3 {
				go func() { result <- c.call(seg) }()
			}
			waitForListener(t, seg)
			detach(t, seg)
			for range 3 {
				wantError(t, <-result, c.op, key, ErrDetached)
			}
		})
	}
}

// A sleep is interrupted, and does not only come to its end.
func TestSleepsEndAtOnce(t *testing.T) {
	for name, end := range map[string]func(seg *Segment, cancel func()) error{
		"Detach":       func(seg *Segment, _ func()) error { return seg.Detach() },
		"cancellation": func(_ *Segment, cancel func()) error { cancel(); return nil },
	} {
		best := time.Hour // of some tries: the machine may be busy
		for range 3 {
			store(t)
			seg := create(t, key, 8)
			ctx, cancel := context.WithCancel(context.Background())
			result := make(chan error)
			go func() {
				_, err := seg.Wait(ctx, 0)
				result <- err
			}()
			waitForListener(t, seg)
			untilAsleep()
			begin := time.Now()
			if err := end(seg, cancel); err != nil {
				t.Error(err)
			}
			<-result
			best = min(best, time.Since(begin))
			cancel()
		}
		if best > eventSlice/4 {
			t.Errorf("Wait ended %v after the %s", best, name)
		}
	}
}

// Detach ends the calls of its own attachment only.
func TestDetachLeavesOtherAttachmentsWaiting(t *testing.T) {
	store(t)
	seg, other := create(t, key, 8), attach(t, key)
	result := make(chan error)
	go func() {
		_, err := other.Wait(context.Background(), 0)
		result <- err
	}()
	waitForListener(t, other)
	detach(t, seg)
	select {
	case err := <-result:
		t.Errorf("Wait of the other attachment has returned: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	must(other.WriteAt([]byte("x"), 0))(t)
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestDetachLetsAnUpdateFinish(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 8)
	inside, done := make(chan struct{}), make(chan struct{})
	result := make(chan error)
	go func() {
		result <- seg.Update(func(data []byte) error {
			close(inside)
			<-done
			copy(data, "no fault") // the memory must still be there
			return nil
		})
	}()
	<-inside
	detach(t, seg)
	if len(files(t, dir)) == 0 {
		t.Error("the segment was destroyed during Update")
	}
	close(done)
	if err := <-result; err != nil {
		t.Error(err)
	}
	wantFiles(t, dir) // the last call has ended the attachment
}

func TestDetachInsideUpdate(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 8)
	if err := seg.Update(func(data []byte) error {
		detach(t, seg)
		copy(data, "no fault")
		return nil
	}); err != nil {
		t.Error(err)
	}
	wantFiles(t, dir)
}

// A goroutine that does not know yet that the attachment has ended must not take the
// lock: another process could take its owner for dead.
func TestLockAfterDetachTouchesNothing(t *testing.T) {
	store(t)
	other, seg := create(t, key, 8), attach(t, key)
	detach(t, seg)
	rounds := 100000
	if testing.Short() {
		rounds = 10000
	}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range rounds {
				if err := seg.Lock(); err == nil {
					t.Error("a detached attachment has locked")
				}
			}
		})
	}
	for range 3 * rounds {
		if ok, err := other.TryLock(); !ok || err != nil || other.Abandoned() {
			t.Errorf("TryLock %v, %v, abandoned: %v", ok, err, other.Abandoned())
			break
		}
		unlock(t, other)
	}
	wg.Wait()
}

// tryFast reads the word, looks whether the attachment is detached, and swaps the
// word. This takes the steps apart: the attachment ends after the look, and another one
// gets its slot. If the swap succeeded, the word would name that one.
func TestLockThatIsLaterThanDetachDoesNotSucceed(t *testing.T) {
	for name, next := range map[string]func(t *testing.T, other *Segment){
		"the slot is free":           func(*testing.T, *Segment) {},
		"claimed by this process":    func(t *testing.T, other *Segment) { attach(t, key) },
		"claimed by another process": func(t *testing.T, other *Segment) { otherProcess(t, other) },
		"the other attachment has locked and unlocked": func(t *testing.T, other *Segment) {
			other.View(nothing) // which does not move the version
		},
		"claimed, locked and unlocked": func(t *testing.T, other *Segment) { attach(t, key).View(nothing) },
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			other, seg := create(t, key, 8), attach(t, key)
			word := &other.head.word
			w := word.Load()
			detach(t, seg)
			next(t, other)
			if word.CompareAndSwap(w, w|seg.owner) {
				t.Errorf("the word is %#x, and its owner is detached", word.Load())
			}
			if ok, err := other.TryLock(); !ok || err != nil || other.Abandoned() {
				t.Errorf("TryLock of a free lock: %v, %v, abandoned: %v", ok, err, other.Abandoned())
			}
		})
	}
}

// Each Detach changes the word, and changes nothing else in it.
func TestDetachCountsInTheLockWord(t *testing.T) {
	store(t)
	holder := create(t, key, 8)
	lock(t, holder)
	word := &holder.head.word
	want := uint64(7)<<32 | abandonedBit | starvingBit | waitersBit | holder.owner
	word.Store(want | detachMask) // the next one wraps
	for range 3 {
		detach(t, attach(t, key))
		if got := word.Load(); got != want {
			t.Errorf("the word is %#x, want %#x", got, want)
		}
		want += detachOne
	}
}

func TestDetachReleasesTheLock(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	result := make(chan error)
	go func() { result <- b.Lock() }()
	waitForSleeper(t, b)
	detach(t, a)
	if err := <-result; err != nil || b.Abandoned() {
		t.Errorf("%v, abandoned: %v", err, b.Abandoned())
	}
	if v := b.Version(); v != 1 {
		t.Errorf("the version is %d, want 1: the data may have changed", v)
	}
}

func TestOneOfManyDetaches(t *testing.T) {
	for range 100 {
		store(t)
		seg := create(t, key, 8)
		var wg sync.WaitGroup
		results := make(chan error, 4)
		start := make(chan struct{})
		for range cap(results) {
			wg.Go(func() {
				<-start
				results <- seg.Detach()
			})
		}
		close(start)
		wg.Wait()
		ok := 0
		for range cap(results) {
			if err := <-results; err == nil {
				ok++
			} else {
				wantError(t, err, "detach", key, ErrDetached)
			}
		}
		if ok != 1 {
			t.Fatalf("%d calls report that they have detached, want 1", ok)
		}
	}
}

// When Wait has returned because its context ended, nothing of it is left that could
// keep the attachment: the next Detach ends it before it returns.
func TestDetachAfterACancelledWaitIsComplete(t *testing.T) {
	dir := store(t)
	for range 500 {
		seg := must(Create(key, 1))(t)
		ctx, cancel := context.WithCancel(context.Background())
		woken := make(chan error)
		go func() {
			_, err := seg.Wait(ctx, seg.Version())
			woken <- err
		}()
		cancel()
		if err := <-woken; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		detach(t, seg)
		if wantFiles(t, dir); t.Failed() {
			return
		}
	}
}

// Goroutines make all calls, in a loop, while another one detaches. Nothing may fault,
// and no call may report anything but ErrDetached.
func TestDetachAmongAllCallsNeverFaults(t *testing.T) {
	rounds := 20
	if testing.Short() {
		rounds = 5
	}
	for _, others := range []bool{false, true} { // the memory stays, or ends with this attachment
		for range rounds {
			if detachAmongCalls(t, others); t.Failed() {
				return
			}
		}
	}
}

func detachAmongCalls(t *testing.T, others bool) {
	dir := t.TempDir()
	seg := must(Create(key, 64, Dir(dir)))(t)
	var other *Segment
	if others {
		other = must(Attach(key, Dir(dir)))(t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := func() []byte { return make([]byte, 64) }
	calls := []func() error{
		func() error {
			if err := seg.Lock(); err != nil {
				return err
			}
			return seg.Unlock()
		},
		func() error {
			if err := seg.LockContext(ctx); err != nil {
				return err
			}
			seg.Abandoned()
			return seg.Unlock()
		},
		func() error {
			ok, err := seg.TryLock()
			if ok {
				err = seg.Unlock()
			}
			return err
		},
		func() error { return seg.View(func(data []byte) error { copy(buf(), data); return nil }) },
		func() error { return seg.Update(func(data []byte) error { data[0]++; return nil }) },
		func() error { return seg.UpdateWhen(ctx, func(data []byte) bool { return data[0] != 1 }, nothing) },
		func() error { return seg.View(nothing) },
		func() error { _, _, err := seg.Snapshot(buf()); return err },
		func() error { _, err := seg.ReadAt(buf(), 0); return err },
		func() error { _, err := seg.WriteAt(buf(), 0); return err },
		func() error { _, err := Load[uint64](seg, 3); return err },
		func() error { return Store(seg, 3, uint64(0)) },
		func() error { return seg.Grow(seg.Size() + 100) },
		func() error { _, err := seg.Wait(ctx, seg.Version()-1); return err },
		func() error { _, err := seg.Info(); return err },
		func() error { _, err := Value[uint64](seg, 8); return err },
		func() error { seg.Version(); seg.Size(); seg.Attached(); seg.ID(); return nil },
	}
	var wg sync.WaitGroup
	begun := make(chan struct{}, len(calls))
	for i, call := range calls {
		wg.Go(func() {
			for n := 0; ; n++ {
				err := call()
				if err != nil && !errors.Is(err, ErrDetached) {
					t.Errorf("call %d: %v", i, err)
				}
				if n == 0 {
					begun <- struct{}{}
				}
				if err != nil || !seg.Attached() {
					return
				}
			}
		})
	}
	for range len(calls) / 2 { // others have not begun yet, or wait
		<-begun
	}
	if err := seg.Detach(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	if others {
		ok, err := other.TryLock()
		if !ok || err != nil {
			t.Errorf("the other attachment cannot lock: %v, %v, word %#x", ok, err, other.m.head.word.Load())
		}
		if other.Abandoned() {
			t.Error("abandoned, though no process has died")
		}
		if err := other.Detach(); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, dir)
}
