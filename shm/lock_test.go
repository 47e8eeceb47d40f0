package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// contend has each lock and unlock n times, and count on the heap and in the
// memory: both come out right only if they exclude each other. The race detector
// watches the one on the heap.
func contend(t *testing.T, n int, segs ...*Segment) {
	t.Helper()
	var wg sync.WaitGroup
	onHeap := 0
	for _, seg := range segs {
		wg.Go(func() {
			for range n {
				if err := seg.Lock(); err != nil {
					t.Error(err)
					return
				}
				onHeap++
				seg.Data()[0]++
				if seg.Data()[0] == 0 {
					seg.Data()[1]++
				}
				seg.Unlock()
			}
		})
	}
	wg.Wait()
	want := n * len(segs)
	if d := segs[0].Data(); onHeap != want || int(d[0])+int(d[1])<<8 != want&0xffff {
		t.Errorf("counted %d on the heap and %d in the memory; want %d", onHeap, int(d[0])+int(d[1])<<8, want)
	}
}

func TestGoroutinesExcludeEachOther(t *testing.T) {
	store(t)
	seg := create(t, key, 2)
	contend(t, 3000, seg, seg, seg, seg)
}

func TestAttachmentsExcludeEachOther(t *testing.T) {
	store(t)
	seg := create(t, key, 2)
	contend(t, 3000, seg, attach(t, key), attach(t, key), seg)
}

func TestUpdatesExcludeEachOther(t *testing.T) {
	store(t)
	segs := []*Segment{create(t, key, 2), attach(t, key)}
	onHeap := 0
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 2000 {
				segs[i%2].Update(func([]byte) error { onHeap++; return nil })
			}
		})
	}
	wg.Wait()
	if onHeap != 8000 {
		t.Errorf("counted %d", onHeap)
	}
}

func TestTryLockDoesNotWait(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	if ok, err := a.TryLock(); !ok || err != nil {
		t.Fatalf("of a free lock: %v, %v", ok, err)
	}
	for _, seg := range []*Segment{a, b} {
		if ok, err := seg.TryLock(); ok || err != nil {
			t.Errorf("of a held lock: %v, %v", ok, err)
		}
	}
	unlock(t, a)
	if ok, err := b.TryLock(); !ok || err != nil {
		t.Errorf("of a lock that is free again: %v, %v", ok, err)
	}
}

// wantGaveUp asks for the error of somebody who has waited in vain.
func wantGaveUp(t *testing.T, err, kind error) {
	t.Helper()
	wantError(t, err, "lock", key, kind)
	if !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("%v: does not name the holder", err)
	}
}

func TestLockEndsWithTheDeadline(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	for _, seg := range []*Segment{a, b} {
		for _, d := range []time.Duration{0, 100 * time.Microsecond, 10 * time.Millisecond, 60 * time.Millisecond} {
			ctx, cancel := context.WithTimeout(context.Background(), d)
			err := seg.LockContext(ctx)
			if cancel(); d > time.Millisecond { // else it may have ended before the wait began
				wantGaveUp(t, err, context.DeadlineExceeded)
			} else {
				wantError(t, err, "lock", key, context.DeadlineExceeded)
			}
		}
	}
}

func TestLockEndsWithCancellation(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	for range 3 { // one waits, the others wait for it
		go func() { result <- b.LockContext(ctx) }()
	}
	waiting(t, a)
	cancel()
	named := 0 // at least by the one who waits; the others may not have begun
	for range 3 {
		err := <-result
		wantError(t, err, "lock", key, context.Canceled)
		if strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
			named++
		}
	}
	if named == 0 {
		t.Error("nobody named the holder")
	}
}

func TestEndedContextDoesNotLock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantError(t, seg.LockContext(ctx), "lock", key, context.Canceled)
	if ok, _ := seg.TryLock(); !ok {
		t.Error("it is locked")
	}
}

// Whoever gives up leaves nothing behind, however long they have waited.
func TestLockIsFreeAfterAWaiterGaveUp(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	ctx, cancel := context.WithTimeout(context.Background(), 5*overdueAfter)
	defer cancel()
	wantGaveUp(t, b.LockContext(ctx), context.DeadlineExceeded)
	unlock(t, a)
	if ok, err := a.TryLock(); !ok || err != nil {
		t.Fatalf("TryLock of a free lock: %v, %v", ok, err)
	}
	unlock(t, a)
	if w := a.m.head.word.Load(); w&overdueBit != 0 {
		t.Errorf("the word is %#x: everybody's fast path is closed", w)
	}
}

// A waiter that dies cannot tidy up.
func TestLockIsFreeAfterAWaiterDied(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	seg.m.head.word.Or(overdueBit | waitersBit) // as a waiter leaves it
	if ok, err := seg.TryLock(); !ok || err != nil {
		t.Fatalf("TryLock of a free lock: %v, %v", ok, err)
	}
	unlock(t, seg)
	lock(t, seg)
	unlock(t, seg)
}

func TestWaiterGetsTheLock(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	result := make(chan error)
	go func() { result <- b.Lock() }()
	waiting(t, a)
	unlock(t, a)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if b.Abandoned() {
		t.Error("Abandoned, though nobody has died")
	}
	unlock(t, b)
}

func TestAnyGoroutineMayUnlock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	lock(t, seg)
	result := make(chan error)
	go func() { result <- seg.Unlock() }()
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestDetachReleasesTheLock(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	result := make(chan error)
	go func() { result <- b.Lock() }()
	waiting(t, b)
	detach(t, a)
	if err := <-result; err != nil || b.Abandoned() {
		t.Errorf("%v; abandoned: %v", err, b.Abandoned())
	}
}

func TestDeadOwnerIsReplacedAndToldOf(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	for name, take := range map[string]func() error{
		"Lock":        seg.Lock,
		"LockContext": func() error { return seg.LockContext(context.Background()) },
		"TryLock": func() error {
			ok, err := seg.TryLock()
			if err == nil && !ok {
				err = errors.New("not taken")
			}
			return err
		},
	} {
		runThenKill(t, "lock and die", key)
		before := seg.Version()
		if err := take(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !seg.Abandoned() {
			t.Errorf("%s: not told that the owner has died", name)
		}
		if seg.Version() == before {
			t.Errorf("%s: the data may have changed, and the version has not", name)
		}
		unlock(t, seg)
		lock(t, seg)
		if seg.Abandoned() {
			t.Errorf("%s: abandoned still, after one has unlocked who could repair", name)
		}
		unlock(t, seg)
	}
}

func TestAbandonedIsForTheOwnerOnly(t *testing.T) {
	store(t)
	seg, other := create(t, key, 100), attach(t, key)
	runThenKill(t, "lock and die", key)
	if seg.Abandoned() {
		t.Error("reported to one who has not locked")
	}
	lock(t, seg)
	if other.Abandoned() || !seg.Abandoned() {
		t.Errorf("reported to another: %v, to the owner: %v", other.Abandoned(), seg.Abandoned())
	}
}

func TestAbandonedUntilAWriterUnlocks(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly)
	runThenKill(t, "lock and die", key)
	for range 2 {
		lock(t, reader)
		if !reader.Abandoned() {
			t.Error("a reader cannot have repaired it")
		}
		unlock(t, reader)
	}
	seg.View(func([]byte) error {
		if !seg.Abandoned() {
			t.Error("View does not write")
		}
		return nil
	})
	seg.Update(func([]byte) error { return nil })
	lock(t, reader)
	if reader.Abandoned() {
		t.Error("repaired, and still abandoned")
	}
}

// One that reaps a dead process's slot, and is slow, must not take the lock from
// a living one that has got the slot and the lock since.
func TestReaperDoesNotRobTheSuccessor(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	m, own := seg.m, seg.a.h.presence.Token()
	s := &m.slot[1]
	stop := make(chan struct{})
	var reapers sync.WaitGroup
	var rounds [4]atomic.Int64
	for i := range rounds {
		reapers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					m.reap(seg.a.h.dir, own, true)
					runtime.Gosched()
					rounds[i].Add(1)
				}
			}
		})
	}
	const dead = 42
	robbed := 0
	for range 100 {
		s.token.Store(dead)
		m.head.refs.Add(1)
		for s.token.Load() != 0 {
			runtime.Gosched()
		}
		// The successor takes the slot, as claim does, and the lock, and has it
		// until no reaper is at work any more that has seen the dead one.
		s.token.Store(own)
		gen := (metaGen(s.meta.Load()) + 1) & genMask
		s.meta.Store(packMeta(os.Getpid(), gen, 0))
		mine := ownerBits(1, gen)
		m.head.word.Store(mine)
		for i := range rounds {
			for begun := rounds[i].Load(); rounds[i].Load() == begun; {
				runtime.Gosched()
			}
		}
		if owner(m.head.word.Load()) != mine {
			robbed++
		}
		m.head.word.Store(0)
		s.token.Store(0)
	}
	close(stop)
	reapers.Wait()
	if robbed > 0 {
		t.Errorf("the lock was taken %d times from one that is alive", robbed)
	}
}

func TestViewAndUpdateAreLocked(t *testing.T) {
	store(t)
	seg, other := create(t, key, 4), attach(t, key)
	held := func(data []byte) error {
		if ok, _ := other.TryLock(); ok {
			t.Error("not locked")
		}
		if len(data) != 4 {
			t.Errorf("%d bytes", len(data))
		}
		return nil
	}
	if err := errors.Join(seg.View(held), seg.Update(held)); err != nil {
		t.Fatal(err)
	}
	if ok, _ := other.TryLock(); !ok {
		t.Error("still locked")
	}
}

func TestErrorOfAFunctionIsPassedOn(t *testing.T) {
	store(t)
	seg := create(t, key, 4)
	own := errors.New("own")
	fails := func([]byte) error { return own }
	if err := seg.View(fails); err != own {
		t.Errorf("View: %v", err)
	}
	if err := seg.Update(fails); err != own {
		t.Errorf("Update: %v", err)
	}
	if ok, _ := seg.TryLock(); !ok || seg.Abandoned() {
		t.Error("still locked, or abandoned")
	}
}

// panics calls f and swallows its panic.
func panics(f func()) {
	defer func() { recover() }()
	f()
}

func TestPanicInUpdateAbandonsTheData(t *testing.T) {
	store(t)
	seg, other := create(t, key, 4), attach(t, key)
	panics(func() { seg.Update(func([]byte) error { panic("half-way") }) })
	lock(t, other)
	if !other.Abandoned() {
		t.Error("the next is not told")
	}
	unlock(t, other)
	lock(t, seg)
	if seg.Abandoned() {
		t.Error("still abandoned after the repair")
	}
	unlock(t, seg)
}

func TestPanicInViewDoesNot(t *testing.T) {
	store(t)
	seg := create(t, key, 4)
	panics(func() { seg.View(func([]byte) error { panic("looking") }) })
	if ok, _ := seg.TryLock(); !ok || seg.Abandoned() {
		t.Error("still locked, or abandoned")
	}
}
