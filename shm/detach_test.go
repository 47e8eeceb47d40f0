package shm

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"qshm/lockfile"
)

// whileWaiting detaches while call waits on a lock that another attachment holds,
// and returns what the call reports.
func whileWaiting(t *testing.T, call func(*Segment) error) error {
	t.Helper()
	store(t)
	holder, seg := create(t, key, 8), attach(t, key)
	lock(t, holder)
	result := make(chan error)
	go func() { result <- call(seg) }()
	waiting(t, seg)
	detach(t, seg)
	return <-result
}

func TestDetachEndsLock(t *testing.T) {
	wantError(t, whileWaiting(t, (*Segment).Lock), "lock", key, ErrDetached)
}

func TestDetachEndsLockContext(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	wantError(t, whileWaiting(t, func(s *Segment) error { return s.LockContext(ctx) }), "lock", key, ErrDetached)
}

func TestDetachEndsUpdate(t *testing.T) {
	never := func([]byte) error { t.Error("called"); return nil }
	wantError(t, whileWaiting(t, func(s *Segment) error { return s.Update(never) }), "update", key, ErrDetached)
}

func TestDetachEndsView(t *testing.T) {
	never := func([]byte) error { t.Error("called"); return nil }
	wantError(t, whileWaiting(t, func(s *Segment) error { return s.View(never) }), "view", key, ErrDetached)
}

func TestDetachEndsSnapshot(t *testing.T) {
	snapshot := func(s *Segment) error { _, _, err := s.Snapshot(make([]byte, 8)); return err }
	wantError(t, whileWaiting(t, snapshot), "snapshot", key, ErrDetached)
}

func TestDetachEndsWriteAt(t *testing.T) {
	write := func(s *Segment) error { _, err := s.WriteAt(make([]byte, 8), 0); return err }
	wantError(t, whileWaiting(t, write), "write", key, ErrDetached)
}

func TestDetachEndsAllWhoQueueInAProcess(t *testing.T) {
	store(t)
	holder, seg := create(t, key, 8), attach(t, key)
	lock(t, holder)
	result := make(chan error)
	for range 5 {
		go func() { result <- seg.Lock() }()
	}
	waiting(t, seg)
	detach(t, seg)
	for range 5 {
		wantError(t, <-result, "lock", key, ErrDetached)
	}
}

func TestDetachEndsWait(t *testing.T) {
	cancelled, cancel := context.WithCancel(context.Background())
	defer cancel()
	for _, ctx := range []context.Context{context.Background(), cancelled} {
		store(t)
		seg := create(t, key, 8)
		result := make(chan error)
		go func() {
			_, err := seg.Wait(ctx, 0)
			result <- err
		}()
		listening(t, seg)
		detach(t, seg)
		wantError(t, <-result, "wait", key, ErrDetached)
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
	close(done)
	if err := <-result; err != nil {
		t.Error(err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("the last call out has not ended it: %v", left)
	}
}

// Those who do not know yet that the attachment has ended must not be seen in the
// lock by others, who would take them for dead.
func TestLockAfterDetachTouchesNothing(t *testing.T) {
	store(t)
	other, seg := create(t, key, 8), attach(t, key)
	detach(t, seg)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100000 {
				if err := seg.Lock(); err == nil {
					t.Error("locked")
				}
			}
		})
	}
	for range 300000 {
		if ok, err := other.TryLock(); !ok || err != nil || other.Abandoned() {
			t.Errorf("%v, %v, abandoned: %v", ok, err, other.Abandoned())
			break
		}
		unlock(t, other)
	}
	wg.Wait()
}

func TestOneOfManyDetaches(t *testing.T) {
	for range 200 {
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
			t.Fatalf("%d have detached", ok)
		}
	}
}

// Goroutines call everything there is, in a loop, while another detaches. That
// nothing faults is the test; and what they are told is ErrDetached, no other.
func TestDetachAmongAllCallsNeverFaults(t *testing.T) {
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	for _, others := range []bool{false, true} { // the memory stays, or goes with this attachment
		for range rounds {
			hammer(t, others)
			if t.Failed() {
				return
			}
		}
	}
}

func hammer(t *testing.T, others bool) {
	dir := t.TempDir()
	seg := must(Create(key, 64, Dir(dir)))(t)
	var other *Segment
	if others {
		other = must(Attach(key, Dir(dir)))(t)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	buf := func() []byte { return make([]byte, 64) }
	nothing := func([]byte) error { return nil }
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
		func() error { return seg.View(nothing) },
		func() error { _, _, err := seg.Snapshot(buf()); return err },
		func() error { _, err := seg.ReadAt(buf(), 0); return err },
		func() error { _, err := seg.WriteAt(buf(), 0); return err },
		func() error { _, err := seg.Wait(ctx, seg.Version()-1); return err },
		func() error { _, err := seg.Info(); return err },
		func() error { seg.Version(); seg.Size(); seg.Attached(); return nil },
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
	for range calls {
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
			t.Error("abandoned, though nobody has died")
		}
		if err := other.Detach(); err != nil {
			t.Error(err)
		}
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

// The last one to detach finds somebody inside the door, and destroys the segment
// when that one has left.
func TestLastDetachWaitsForTheDoor(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 8)
	door, err := lockfile.Enter(t.Context(), pathOf(dir, key))
	if err != nil {
		t.Fatal(err)
	}
	result := make(chan error)
	go func() { result <- seg.Detach() }()
	eventually(t, "the slot is given back", func() bool { return seg.head.refs.Load() == 0 })
	time.Sleep(time.Millisecond) // until it is at the door: most often
	if err := door.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	if left := files(t, dir); len(left) > 0 {
		t.Errorf("left are %v", left)
	}
}
