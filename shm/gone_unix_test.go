//go:build unix

package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"
)

// needAddresses skips the test where a fault does not tell its address, as under
// some qemus: what cannot be told to be ours goes on as a panic.
func needAddresses(t *testing.T) {
	t.Helper()
	seg := create(t, "probe", 1)
	defer detach(t, seg)
	cut(t, seg, int64(seg.m.dataOff))
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		fault, ok := recover().(interface{ Addr() uintptr })
		if !ok || !contains(seg.m.rw, fault.Addr()) {
			t.Skip("faults do not tell where they are")
		}
	}()
	seg.Data()[0]++
}

// Somebody truncates the file of a segment that is in use: each call that works
// with the memory reports it, the attachment can be ended, and the key used again.
func TestTruncatedWhileInUse(t *testing.T) {
	const size = 1 << 20
	buf := make([]byte, size)
	touch := func(data []byte) error {
		data[size-1]++
		return nil
	}
	calls := map[string]func(s *Segment) error{
		"read": func(s *Segment) error {
			_, err := s.ReadAt(buf[:1], size-1)
			return err
		},
		"write": func(s *Segment) error {
			_, err := s.WriteAt(buf, 0)
			return err
		},
		"snapshot": func(s *Segment) error {
			_, _, err := s.Snapshot(buf)
			return err
		},
		"view":   func(s *Segment) error { return s.View(touch) },
		"update": func(s *Segment) error { return s.Update(touch) },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			store(t)
			needAddresses(t)
			seg := create(t, key, size)
			cut(t, seg, int64(seg.m.dataOff)+size/2)
			wantError(t, call(seg), name, key, ErrCorrupt)
			// The lock is not left behind, and what remains is of use.
			if got, err := seg.TryLock(); !got || err != nil {
				t.Fatalf("locked: %v, %v", got, err)
			}
			if abandoned := name == "write" || name == "update"; seg.Abandoned() != abandoned {
				t.Errorf("abandoned: %v", seg.Abandoned())
			}
			detach(t, seg)
			detach(t, create(t, key, size))
		})
	}
}

// Without the header there is no lock, nor anybody attached.
func TestTruncatedToNothingWhileInUse(t *testing.T) {
	const size = 1 << 16
	buf := make([]byte, size)
	calls := map[string]func(s *Segment) error{
		"read":     func(s *Segment) error { _, err := s.ReadAt(buf, 0); return err },
		"write":    func(s *Segment) error { _, err := s.WriteAt(buf, 0); return err },
		"snapshot": func(s *Segment) error { _, _, err := s.Snapshot(buf); return err },
		"view":     func(s *Segment) error { return s.View(func([]byte) error { return nil }) },
		"update":   func(s *Segment) error { return s.Update(func([]byte) error { return nil }) },
		"wait":     func(s *Segment) error { _, err := s.Wait(t.Context(), 0); return err },
		"info":     func(s *Segment) error { _, err := s.Info(); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			dir := store(t)
			needAddresses(t)
			seg := create(t, key, size)
			cut(t, seg, 0)
			wantError(t, call(seg), name, key, ErrCorrupt)
			detach(t, seg)
			if left := files(t, dir); len(left) > 0 {
				t.Errorf("left are %v", left)
			}
			detach(t, create(t, key, size))
		})
	}
	t.Run("second attachment", func(t *testing.T) {
		store(t)
		needAddresses(t)
		seg := create(t, key, size)
		cut(t, seg, 0)
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNotExist)
		detach(t, create(t, key, size))
		detach(t, seg)
	})
	t.Run("waiting for the lock", func(t *testing.T) {
		store(t)
		needAddresses(t)
		seg := create(t, key, size)
		second := attach(t, key)
		lock(t, seg)
		ended := make(chan error)
		go func() { ended <- second.Lock() }()
		for seg.head.word.Load()&waitersBit == 0 {
			time.Sleep(time.Millisecond)
		}
		cut(t, seg, 0)
		wantError(t, <-ended, "lock", key, ErrCorrupt)
		detach(t, second)
		detach(t, seg)
	})
	t.Run("detach wakes a waiter", func(t *testing.T) {
		store(t)
		needAddresses(t)
		seg := create(t, key, size)
		ended := make(chan error)
		go func() {
			_, err := seg.Wait(context.Background(), 0)
			ended <- err
		}()
		for seg.head.bell.Load()&bellArmed == 0 {
			time.Sleep(time.Millisecond)
		}
		cut(t, seg, 0)
		detach(t, seg)
		if err := <-ended; !errors.Is(err, ErrDetached) && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
}

func cut(t *testing.T, seg *Segment, size int64) {
	t.Helper()
	if err := os.Truncate(seg.m.path, size); err != nil {
		t.Fatal(err)
	}
}

// A write to data that are mapped read-only is a fault too, and no want of room.
func TestWritingToReadOnlyDataInsideACall(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly)
	write := func(data []byte) error { data[50] = 1; return nil }
	wantError(t, reader.View(write), "view", key, ErrReadOnly)
	// The lock is not left behind, and nothing else is the matter.
	if err := reader.View(func([]byte) error { return nil }); err != nil {
		t.Error(err)
	}
	cut(t, seg, int64(seg.m.dataOff))
	wantError(t, reader.View(write), "view", key, ErrCorrupt)
}

// Faults elsewhere, and panics, stay what they are.
func TestOtherPanicsPass(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 100)
	other := create(t, "other", 1<<16)
	cut(t, other, 0)
	for name, fn := range map[string]func([]byte) error{
		"panic":                func([]byte) error { panic("mine") },
		"fault somewhere else": func(data []byte) error { data[0] = other.Data()[0]; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			got := func() (r any) {
				defer func() { r = recover() }()
				return seg.Update(fn)
			}()
			if _, isError := got.(*Error); got == nil || isError {
				t.Errorf("got %v", got)
			}
			if name == "panic" && fmt.Sprint(got) != "mine" {
				t.Errorf("got %v", got)
			}
			if err := seg.Update(func([]byte) error { return nil }); err != nil {
				t.Error(err)
			}
		})
	}
	detach(t, other)
	func() {
		defer func() {
			if r := recover(); fmt.Sprint(r) != "mine" {
				t.Errorf("got %v", r)
			}
		}()
		err := seg.Update(func([]byte) error {
			cut(t, seg, 0) // and with it, the lock
			panic("mine")
		})
		t.Error("the panic has become:", err)
	}()
	detach(t, seg)
}
