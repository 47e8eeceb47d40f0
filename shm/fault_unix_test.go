//go:build unix

package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
)

// needAddresses skips the test where a fault does not tell its address, as under some
// versions of qemu: such a fault goes on as a panic.
func needAddresses(t *testing.T) {
	t.Helper()
	seg := create(t, "probe", 1)
	defer detach(t, seg)
	truncate(t, seg, int64(seg.m.dataOff))
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		fault, ok := recover().(interface{ Addr() uintptr })
		if !ok || !contains(seg.Data(), fault.Addr()) {
			t.Skip("faults do not tell where they are")
		}
	}()
	seg.Data()[0]++
}

func truncate(t *testing.T, seg *Segment, size int64) {
	t.Helper()
	if err := os.Truncate(seg.m.path, size); err != nil {
		t.Fatal(err)
	}
}

// Another program truncates the file of a segment in use: each call that uses the
// memory reports it, the attachment can be ended, and the key used again.
func TestTruncatedDataAreErrCorrupt(t *testing.T) {
	const size = 1 << 20
	buf := make([]byte, size)
	touch := func(data []byte) error {
		data[size-1]++
		return nil
	}
	calls := map[string]func(s *Segment) error{
		"read":     func(s *Segment) error { _, err := s.ReadAt(buf[:1], size-1); return err },
		"write":    func(s *Segment) error { _, err := s.WriteAt(buf, 0); return err },
		"load":     func(s *Segment) error { _, err := Load[byte](s, size-1); return err },
		"store":    func(s *Segment) error { return Store(s, size-4, int32(1)) },
		"snapshot": func(s *Segment) error { _, _, err := s.Snapshot(buf); return err },
		"view":     func(s *Segment) error { return s.View(touch) },
		"update":   func(s *Segment) error { return s.Update(touch) },
		"update when": func(s *Segment) error {
			return s.UpdateWhen(t.Context(), func(data []byte) bool { return data[size-1] == 0 }, nothing)
		},
	}
	for _, grown := range []bool{false, true} {
		for name, call := range calls {
			t.Run(fmt.Sprint(name, ", grown: ", grown), func(t *testing.T) {
				store(t)
				needAddresses(t)
				seg := create(t, key, size)
				if grown {
					detach(t, seg)
					seg = create(t, key, 1)
					if err := seg.Grow(size); err != nil || seg.Size() != size {
						t.Fatal(seg.Size(), err)
					}
				}
				truncate(t, seg, int64(seg.m.dataOff)+size/2)
				err := call(seg)
				wantError(t, err, strings.Fields(name)[0], key, ErrCorrupt)
				if !strings.Contains(err.Error(), seg.m.path) {
					t.Errorf("%v: does not name the file", err)
				}
				// The lock is not left behind, and what remains can be used.
				if ok, err := seg.TryLock(); !ok || err != nil {
					t.Fatalf("TryLock: %v, %v", ok, err)
				}
				if writes := name == "write" || name == "store" || name == "update"; seg.Abandoned() != writes {
					t.Errorf("abandoned: %v, want %v", seg.Abandoned(), writes)
				}
				detach(t, seg)
				detach(t, create(t, key, size))
			})
		}
	}
}

// Without the header there is no lock, and no process is attached.
func TestTruncatedHeaderIsErrCorrupt(t *testing.T) {
	const size = 1 << 16
	buf := make([]byte, size)
	calls := map[string]func(s *Segment) error{
		"read":     func(s *Segment) error { _, err := s.ReadAt(buf, 0); return err },
		"write":    func(s *Segment) error { _, err := s.WriteAt(buf, 0); return err },
		"load":     func(s *Segment) error { _, err := Load[byte](s, 0); return err },
		"store":    func(s *Segment) error { return Store(s, 0, byte(1)) },
		"snapshot": func(s *Segment) error { _, _, err := s.Snapshot(buf); return err },
		"view":     func(s *Segment) error { return s.View(nothing) },
		"update":   func(s *Segment) error { return s.Update(nothing) },
		"grow":     func(s *Segment) error { return s.Grow(2 * size) },
		"wait":     func(s *Segment) error { _, err := s.Wait(t.Context(), 0); return err },
		"info":     func(s *Segment) error { _, err := s.Info(); return err },
		"value":    func(s *Segment) error { _, err := Value[byte](s, 0); return err },
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			dir := store(t)
			needAddresses(t)
			seg := create(t, key, size)
			truncate(t, seg, 0)
			op := name
			if op == "value" {
				op = "view"
			}
			wantError(t, call(seg), op, key, ErrCorrupt)
			detach(t, seg)
			wantFiles(t, dir)
			detach(t, create(t, key, size))
		})
	}
	t.Run("second attachment", func(t *testing.T) {
		store(t)
		needAddresses(t)
		seg := create(t, key, size)
		truncate(t, seg, 0)
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNotExist)
		if strings.Contains(err.Error(), "exited") {
			t.Errorf("%v: but this process is attached", err)
		}
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
		waitForSleeper(t, seg)
		truncate(t, seg, 0)
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
		waitForListener(t, seg)
		truncate(t, seg, 0)
		detach(t, seg)
		if err := <-ended; !errors.Is(err, ErrDetached) && !errors.Is(err, ErrCorrupt) {
			t.Error(err)
		}
	})
	t.Run("create at once", func(t *testing.T) {
		store(t)
		needAddresses(t)
		seg := create(t, key, size)
		truncate(t, seg, 0)
		next := create(t, key, size) // in the same file, whose slot locks go on
		if !next.m.locks.Atomic() {
			t.Skip("the slot locks are in other files")
		}
		detach(t, seg)
		if info := must(Stat(key))(t); info.Status != StatusLive || info.Attached != 1 || next.Size() != size {
			t.Errorf("%v, %d attached, size %d", info.Status, info.Attached, next.Size())
		}
		if ok, err := next.TryLock(); !ok || err != nil {
			t.Errorf("TryLock: %v, %v", ok, err)
		}
	})
}

// A write to data that are mapped read-only is a fault too, but no lack of room.
func TestWritingToReadOnlyDataInsideViewIsErrReadOnly(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly())
	write := func(data []byte) error { data[50] = 1; return nil }
	wantError(t, reader.View(write), "view", key, ErrReadOnly)
	if err := reader.View(nothing); err != nil { // the lock was released
		t.Error(err)
	}
	truncate(t, seg, int64(seg.m.dataOff))
	wantError(t, reader.View(write), "view", key, ErrCorrupt)
}

// Faults elsewhere, and panics, are not turned into errors.
func TestOtherPanicsPass(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 100)
	other := create(t, "other", 1<<16)
	data := other.Data()
	truncate(t, other, 0)
	for name, fn := range map[string]func([]byte) error{
		"panic":                func([]byte) error { panic("mine") },
		"fault somewhere else": func(mine []byte) error { mine[0] = data[0]; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			got := func() (r any) {
				defer func() { r = recover() }()
				return seg.Update(fn)
			}()
			if _, isError := got.(*Error); got == nil || isError {
				t.Errorf("recovered %v, want the panic", got)
			}
			if name == "panic" && fmt.Sprint(got) != "mine" {
				t.Errorf("recovered %v, want the panic", got)
			}
			if err := seg.Update(nothing); err != nil {
				t.Error(err)
			}
		})
	}
	detach(t, other)
	func() {
		defer func() {
			if r := recover(); fmt.Sprint(r) != "mine" {
				t.Errorf("recovered %v, want the panic", r)
			}
		}()
		err := seg.Update(func([]byte) error {
			truncate(t, seg, 0) // and with it, the lock
			panic("mine")
		})
		t.Error("the panic has become an error:", err)
	}()
	detach(t, seg)
}

// Faults of a Segment that another goroutine detaches stay errors: the memory is
// unmapped after the last call.
func TestFaultWhileDetaching(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 1<<16)
	err := seg.View(func(data []byte) error {
		detach(t, seg)
		truncate(t, seg, int64(seg.m.dataOff))
		data[0]++
		return nil
	})
	wantError(t, err, "view", key, ErrCorrupt)
}
