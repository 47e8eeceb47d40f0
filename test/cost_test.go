package test

import (
	"context"
	"errors"
	"testing"

	"qshm/shm"
)

// What calls cost: allocations here, system calls and threads in cost_linux_test.go.

func TestCallsThatDoNotAllocate(t *testing.T) {
	st := newStore(t)
	s, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	defer s.Close()
	ctx, buf := context.Background(), make([]byte, 64)
	nothing := func([]byte) error { return nil }
	always := func([]byte) bool { return true }
	for name, call := range map[string]func() error{
		"Lock":       func() error { return errors.Join(s.Lock(), s.Unlock()) },
		"View":       func() error { return s.View(nothing) },
		"Update":     func() error { return s.Update(nothing) },
		"UpdateWhen": func() error { return s.UpdateWhen(ctx, always, nothing) },
		"Load":       func() error { _, err := shm.Load[[3]uint64](s, 5); return err },
		"Store":      func() error { return shm.Store(s, 5, [3]uint64{1, 2, 3}) },
		"Snapshot":   func() error { _, _, err := s.Snapshot(buf); return err },
		"ReadAt":     func() error { _, err := s.ReadAt(buf, 0); return err },
		"WriteAt":    func() error { _, err := s.WriteAt(buf, 0); return err },
		"Data":       func() error { _ = s.Data(); return nil },
		"Value":      func() error { _, err := shm.Value[uint32](s, 8); return err },
	} {
		if n := testing.AllocsPerRun(100, func() { must(t, call()) }); n != 0 {
			t.Errorf("%s allocates %v times, want 0", name, n)
		}
	}
}
