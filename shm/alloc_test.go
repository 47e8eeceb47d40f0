//go:build !race

package shm

import (
	"context"
	"testing"
	"time"
)

func TestNothingIsAllocated(t *testing.T) {
	store(t)
	seg, other := create(t, key, 64), attach(t, key)
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	buf := make([]byte, 64)
	view := func([]byte) error { return nil }
	var since uint32
	// A writer that changes something once a waiter is asleep.
	go func() {
		for ctx.Err() == nil {
			if other.m.head.bell.Load()&bellArmed != 0 {
				other.lockedTouch()
			}
			pause()
		}
	}()
	for name, call := range map[string]func(){
		"Lock and Unlock":           func() { seg.Lock(); seg.Unlock() },
		"LockContext":               func() { seg.LockContext(ctx); seg.Unlock() },
		"TryLock":                   func() { seg.TryLock(); seg.Unlock() },
		"Snapshot":                  func() { seg.Snapshot(buf) },
		"ReadAt":                    func() { seg.ReadAt(buf, 0) },
		"WriteAt":                   func() { seg.WriteAt(buf, 0) },
		"View":                      func() { seg.View(view) },
		"Update":                    func() { seg.Update(view) },
		"Version":                   func() { seg.Version() },
		"Wait for what was":         func() { seg.Wait(ctx, seg.Version()-1) },
		"Wait":                      func() { since, _ = seg.Wait(context.Background(), seg.Version()) },
		"Wait with another context": func() { since, _ = seg.Wait(ctx, seg.Version()) },
		"Data, Size, Attached, Key": func() { _, _, _, _ = seg.Data(), seg.Size(), seg.Attached(), seg.Key() },
		"Abandoned":                 func() { seg.Abandoned() },
	} {
		if n := testing.AllocsPerRun(100, call); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
	_ = since
}

// lockedTouch changes the version.
func (s *Segment) lockedTouch() {
	if ok, _ := s.TryLock(); ok {
		s.Unlock()
	}
}
