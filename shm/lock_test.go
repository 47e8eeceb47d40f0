package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// contend locks and unlocks each attachment n times in a goroutine of its own, and
// counts on the heap and in the memory. Both counts are right only if the goroutines
// exclude each other. The race detector watches the count on the heap.
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
		t.Errorf("counted %d on the heap and %d in the memory, want %d", onHeap, int(d[0])+int(d[1])<<8, want)
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
		t.Errorf("counted %d, want 8000", onHeap)
	}
}

func TestTryLockDoesNotWait(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	if ok, err := a.TryLock(); !ok || err != nil {
		t.Fatalf("TryLock of a free lock: %v, %v", ok, err)
	}
	for _, seg := range []*Segment{a, b, otherProcess(t, a)} {
		if ok, err := seg.TryLock(); ok || err != nil {
			t.Errorf("TryLock of a held lock: %v, %v", ok, err)
		}
	}
	unlock(t, a)
	if ok, err := b.TryLock(); !ok || err != nil {
		t.Errorf("TryLock of a lock that is free again: %v, %v", ok, err)
	}
}

// wantGaveUp checks the error of a call that has waited in vain.
func wantGaveUp(t *testing.T, err, kind error) {
	t.Helper()
	wantError(t, err, "lock", key, kind)
	if !strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
		t.Errorf("%v: does not name the process that holds the lock", err)
	}
}

func TestLockEndsWithTheDeadline(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	for _, d := range []time.Duration{0, 100 * time.Microsecond, 10 * time.Millisecond, 60 * time.Millisecond} {
		ctx, cancel := context.WithTimeout(context.Background(), d)
		err := b.LockContext(ctx)
		if cancel(); d > time.Millisecond { // otherwise it may have ended before the wait began
			wantGaveUp(t, err, context.DeadlineExceeded)
		} else {
			wantError(t, err, "lock", key, context.DeadlineExceeded)
		}
	}
}

func TestLockingTwiceSaysThatThisAttachmentHoldsTheLock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	lock(t, seg)
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	err := seg.LockContext(ctx)
	wantError(t, err, "lock", key, context.DeadlineExceeded)
	if !strings.Contains(err.Error(), "this attachment itself holds") {
		t.Error(err)
	}
}

func TestLockEndsWithCancellation(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	for range 3 { // one sleeps, the others wait for it
		go func() { result <- b.LockContext(ctx) }()
	}
	waitForSleeper(t, a)
	cancel()
	named := 0 // by the sleeper at least; the others may not have begun
	for range 3 {
		err := <-result
		wantError(t, err, "lock", key, context.Canceled)
		if strings.Contains(err.Error(), fmt.Sprint("process ", os.Getpid())) {
			named++
		}
	}
	if named == 0 {
		t.Error("no error names the process that holds the lock")
	}
}

func TestEndedContextDoesNotLock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	wantError(t, seg.LockContext(ctx), "lock", key, context.Canceled)
	if ok, _ := seg.TryLock(); !ok {
		t.Error("the segment is locked")
	}
}

// A waiter that gives up leaves nothing behind, however long it has waited.
func TestLockIsFreeAfterAWaiterGaveUp(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	lock(t, a)
	ctx, cancel := context.WithTimeout(context.Background(), 5*starvingAfter)
	defer cancel()
	wantGaveUp(t, b.LockContext(ctx), context.DeadlineExceeded)
	unlock(t, a)
	if ok, err := a.TryLock(); !ok || err != nil {
		t.Fatalf("TryLock of a free lock: %v, %v", ok, err)
	}
	unlock(t, a)
	if w := a.m.head.word.Load(); w&starvingBit != 0 {
		t.Errorf("the word is %#x: no process can take it by one compare-and-swap", w)
	}
}

// A process that unlocks and locks again at once must not get the lock before a
// starving waiter.
func TestLockLeavesTheLockToAStarvingWaiter(t *testing.T) {
	store(t)
	seg, other := create(t, key, 1), attach(t, key)
	for name, unlock := range map[string]func(){
		"Unlock":  func() { unlock(t, seg) },
		"View":    func() { seg.unlock(false, false) },
		"TryLock": func() { unlock(t, seg); seg.TryLock(); unlock(t, seg) },
		"a dead owner": func() {
			dead := otherProcess(t, seg)
			unlock(t, seg)
			seg.head.word.And(^uint64(starvingBit))
			lock(t, dead)
			seg.head.word.Or(starvingBit)
			die(dead)
			seg.m.abandonLock(dead.slot)
		},
	} {
		lock(t, seg)
		seg.head.word.Or(starvingBit)
		unlock()
		if seg.tryFast() || other.tryFast() {
			t.Errorf("%s: an attachment that is not starving has taken the lock", name)
		}
		seg.head.word.And(^uint64(starvingBit))
	}
}

// A waiter that dies cannot clear its bits.
func TestLockIsFreeAfterAWaiterDied(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	seg.m.head.word.Or(starvingBit | waitersBit)
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
	waitForSleeper(t, a)
	unlock(t, a)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if b.Abandoned() {
		t.Error("abandoned, though no process has died")
	}
	unlock(t, b)
}

func sleepOnTheLockRole(key string) error {
	seg, err := Attach(key)
	if err != nil {
		return err
	}
	ticket := seg.m.lockWord.Ticket()
	value := uint32(seg.head.word.Or(waitersBit) | waitersBit)
	go func() {
		ready()
		os.Exit(1) // the test has given up
	}()
	for uint32(seg.head.word.Load()) == value {
		seg.m.lockWord.Sleep(ticket, value, time.Hour)
	}
	return seg.Detach()
}

// wantEnd checks that the processes end, since they were woken.
func wantEnd(t *testing.T, sleepers ...*exec.Cmd) {
	t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() {
		for _, cmd := range sleepers {
			cmd.Process.Kill()
		}
	})
	defer timeout.Stop()
	for i, cmd := range sleepers {
		if err := cmd.Wait(); err != nil {
			t.Errorf("process %d was not woken: %v", i, err)
		}
	}
}

// untilAsleep gives goroutines that are about to sleep the time to do so, most often.
func untilAsleep() { time.Sleep(20 * time.Millisecond) }

func TestUnlockWakesAnotherProcess(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	lock(t, seg)
	sleeper, _ := start(t, "sleep on the lock", key)
	untilAsleep()
	unlock(t, seg)
	wantEnd(t, sleeper)
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

func TestDeadOwnerIsReplacedAndReported(t *testing.T) {
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
		if info := must(seg.Info())(t); !info.Abandoned || info.Owner != nil {
			t.Errorf("%s: Info: abandoned %v, owner %v, want an abandoned lock without owner", name, info.Abandoned, info.Owner)
		}
		if err := take(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if !seg.Abandoned() || !must(seg.Info())(t).Abandoned {
			t.Errorf("%s: the death of the owner is not reported", name)
		}
		if seg.Version() == before {
			t.Errorf("%s: the version has not moved, though the data may have changed", name)
		}
		unlock(t, seg)
		lock(t, seg)
		if seg.Abandoned() || must(seg.Info())(t).Abandoned {
			t.Errorf("%s: still abandoned after an owner that could repair the data has unlocked", name)
		}
		unlock(t, seg)
		if info := must(Stat(key))(t); info.Attached != 1 || seg.head.refs.Load() < 1 {
			t.Errorf("%s: %d attached, %d references, want 1 and at least 1", name, info.Attached, seg.head.refs.Load())
		}
	}
}

// Attaching clears the slot of a dead process, and so takes the lock from it.
func TestAttachFindsTheDeadOwner(t *testing.T) {
	store(t)
	seg := create(t, key, 100, MaxAttachments(2))
	runThenKill(t, "lock and die", key)
	attach(t, key)
	if w := seg.head.word.Load(); w&ownerMask != 0 || w&abandonedBit == 0 || version(w) != 1 || seg.head.refs.Load() != 2 {
		t.Errorf("the word is %#x, want a free lock that is abandoned, and version 1", w)
	}
	lock(t, seg)
	if !seg.Abandoned() {
		t.Error("the death of the owner is not reported")
	}
}

func TestAbandonedIsForTheOwnerOnly(t *testing.T) {
	store(t)
	seg, other := create(t, key, 100), attach(t, key)
	runThenKill(t, "lock and die", key)
	if seg.Abandoned() {
		t.Error("reported to an attachment that does not hold the lock")
	}
	lock(t, seg)
	if other.Abandoned() || !seg.Abandoned() {
		t.Errorf("reported to another attachment: %v, to the owner: %v", other.Abandoned(), seg.Abandoned())
	}
}

func TestAbandonedUntilAWriterUnlocks(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly())
	runThenKill(t, "lock and die", key)
	for range 2 {
		lock(t, reader)
		if !reader.Abandoned() {
			t.Error("not abandoned any more, though a reader cannot repair the data")
		}
		unlock(t, reader)
	}
	seg.View(func([]byte) error {
		if !seg.Abandoned() {
			t.Error("not abandoned any more, though View does not write")
		}
		return nil
	})
	ready := func([]byte) bool {
		if !seg.Abandoned() {
			t.Error("UpdateWhen: not reported to ready")
		}
		return true
	}
	if err := seg.UpdateWhen(t.Context(), ready, func([]byte) error {
		if !seg.Abandoned() {
			t.Error("UpdateWhen: not reported to the function")
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	lock(t, reader)
	if reader.Abandoned() {
		t.Error("still abandoned after an update")
	}
}

func TestViewAndUpdateHoldTheLock(t *testing.T) {
	store(t)
	seg, other := create(t, key, 4), attach(t, key)
	held := func(data []byte) error {
		if ok, _ := other.TryLock(); ok {
			t.Error("another attachment has taken the lock")
		}
		if len(data) != 4 {
			t.Errorf("%d bytes, want 4", len(data))
		}
		return nil
	}
	always := func(data []byte) bool { held(data); return true }
	if err := errors.Join(seg.View(held), seg.Update(held), seg.UpdateWhen(t.Context(), always, held)); err != nil {
		t.Fatal(err)
	}
	if ok, _ := other.TryLock(); !ok {
		t.Error("the lock was not released")
	}
}

func TestErrorOfAFunctionIsReturnedAsItIs(t *testing.T) {
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
	if err := seg.UpdateWhen(t.Context(), func([]byte) bool { return true }, fails); err != own {
		t.Errorf("UpdateWhen: %v", err)
	}
	if ok, _ := seg.TryLock(); !ok || seg.Abandoned() {
		t.Error("still locked, or abandoned")
	}
}

// panics calls f and recovers from its panic.
func panics(f func()) {
	defer func() { recover() }()
	f()
}

func TestPanicInUpdateAbandonsTheData(t *testing.T) {
	always := func([]byte) bool { return true }
	for name, update := range map[string]func(seg *Segment, fn func([]byte) error) error{
		"Update":     (*Segment).Update,
		"UpdateWhen": func(seg *Segment, fn func([]byte) error) error { return seg.UpdateWhen(t.Context(), always, fn) },
	} {
		store(t)
		seg, other := create(t, key, 4), attach(t, key)
		panics(func() { update(seg, func([]byte) error { panic("half-way") }) })
		lock(t, other)
		if !other.Abandoned() {
			t.Errorf("%s: the panic is not reported to the next owner", name)
		}
		unlock(t, other)
		lock(t, seg)
		if seg.Abandoned() {
			t.Errorf("%s: still abandoned after the repair", name)
		}
		unlock(t, seg)
	}
}

func TestPanicInALookDoesNotAbandonTheData(t *testing.T) {
	store(t)
	seg := create(t, key, 4)
	panics(func() { seg.View(func([]byte) error { panic("looking") }) })
	panics(func() { seg.UpdateWhen(t.Context(), func([]byte) bool { panic("looking") }, nothing) })
	if ok, _ := seg.TryLock(); !ok || seg.Abandoned() || seg.Version() != 0 {
		t.Errorf("locked %v, abandoned %v, version %d", ok, seg.Abandoned(), seg.Version())
	}
}

func TestUpdateWhenWaitsForItsCondition(t *testing.T) {
	store(t)
	seg, other := create(t, key, 8), attach(t, key)
	const items, workers = 200, 4
	var taken atomic.Int32
	var wg sync.WaitGroup
	for i := range workers {
		worker := []*Segment{seg, other}[i%2]
		wg.Go(func() {
			for range items / workers {
				err := worker.UpdateWhen(t.Context(),
					func(data []byte) bool { return data[0] > 0 },
					func(data []byte) error {
						if data[0] == 0 {
							t.Error("called though the condition does not hold")
						}
						data[0]--
						taken.Add(1)
						return nil
					})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range items / 2 {
		if err := other.Update(func(data []byte) error { data[0] += 2; return nil }); err != nil {
			t.Fatal(err)
		}
		if taken.Load()%10 == 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	wg.Wait()
	if seg.Data()[0] != 0 || taken.Load() != items {
		t.Errorf("%d taken, %d left, want %d and 0", taken.Load(), seg.Data()[0], items)
	}
}

// Processes that wait for a condition must not wake each other.
func TestUpdateWhenDoesNotMoveTheVersionByLooking(t *testing.T) {
	store(t)
	seg, other := create(t, key, 8), attach(t, key)
	var looks [2]atomic.Int32
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error)
	for i, s := range []*Segment{seg, other} {
		go func() {
			result <- s.UpdateWhen(ctx, func([]byte) bool { looks[i].Add(1); return false }, nothing)
		}()
	}
	eventually(t, "both have looked", func() bool { return looks[0].Load() > 0 && looks[1].Load() > 0 })
	time.Sleep(20 * time.Millisecond)
	if looks[0].Load() != 1 || looks[1].Load() != 1 || seg.Version() != 0 {
		t.Errorf("looked %d and %d times, version %d, want once each and no change", looks[0].Load(), looks[1].Load(), seg.Version())
	}
	cancel()
	for range 2 {
		wantError(t, <-result, "update", key, context.Canceled)
	}
	called := func([]byte) bool { t.Error("ready was called though the context has ended"); return true }
	wantError(t, seg.UpdateWhen(ctx, called, nothing), "update", key, context.Canceled)
}
