//go:build !race

package shm

import (
	"context"
	"testing"
	"time"

	"qshm/shm/internal/spin"
)

func TestNothingIsAllocatedOnTheHeap(t *testing.T) {
	store(t)
	seg, other := create(t, key, 64), attach(t, key)
	reader := attach(t, key, ReadOnly())
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	buf := make([]byte, 64)
	always := func([]byte) bool { return true }
	var since uint32
	stop := make(chan struct{})
	go func() { // changes the version when a waiter is asleep
		for ; ctx.Err() == nil; spin.Pause() {
			if other.head.event.Load()&eventArmed == 0 {
				continue
			}
			if ok, _ := other.TryLock(); ok {
				other.Unlock()
			}
		}
		close(stop)
	}()
	defer func() { cancel(); <-stop }()
	for name, call := range map[string]func(){
		"Lock and Unlock":           func() { seg.Lock(); seg.Unlock() },
		"LockContext":               func() { seg.LockContext(ctx); seg.Unlock() },
		"TryLock":                   func() { seg.TryLock(); seg.Unlock() },
		"Snapshot":                  func() { seg.Snapshot(buf) },
		"ReadAt":                    func() { seg.ReadAt(buf, 0) },
		"WriteAt":                   func() { seg.WriteAt(buf, 0) },
		"Load":                      func() { Load[[3]int64](seg, 1) },
		"Store":                     func() { Store(seg, 1, [3]int64{1, 2, 3}) },
		"Value":                     func() { Value[int64](seg, 0) },
		"Slice":                     func() { Slice[int64](reader, 0, 8) },
		"View":                      func() { seg.View(nothing) },
		"Update":                    func() { seg.Update(nothing) },
		"UpdateWhen":                func() { seg.UpdateWhen(ctx, always, nothing) },
		"Version":                   func() { seg.Version() },
		"Wait for what was":         func() { seg.Wait(ctx, seg.Version()-1) },
		"Wait":                      func() { since, _ = seg.Wait(context.Background(), seg.Version()) },
		"Wait with another context": func() { since, _ = seg.Wait(ctx, seg.Version()) },
		"Data, Size, Attached, Key": func() { _, _, _, _ = seg.Data(), seg.Size(), seg.Attached(), seg.Key() },
		"Abandoned":                 func() { seg.Abandoned() },
		"Grow to its size":          func() { seg.Grow(64) },
	} {
		if n := testing.AllocsPerRun(20, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	_ = since
}
