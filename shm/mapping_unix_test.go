//go:build unix

package shm

import (
	"errors"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"
)

// The Go runtime ends the program when there are no mappings left, so an eighth of
// them is not used.
func TestMappingsAreLeftToTheProgram(t *testing.T) {
	defer func(f func() int64) { maxMappings = f }(maxMappings)
	// No collection frees headers of earlier tests meanwhile.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC()
	for same := 0; same < 10; same++ {
		before := mappings.Load()
		if time.Sleep(20 * time.Millisecond); mappings.Load() != before {
			same = 0
		}
	}
	dir := store(t)
	first := create(t, key, 1)
	used := mappings.Load()
	maxMappings = func() int64 { return (used + 2) * 8 / 7 } // room for two more
	second, third := create(t, "second", 1), create(t, "third", 1)
	before := files(t, dir)
	for _, c := range byKey[:3] {
		name := "fourth"
		if c.op == "attach" {
			name = key
		}
		var err error
		asNewProcess(func() { err = c.call(name) })
		if wantError(t, err, c.op, name, ErrNoSpace); !strings.Contains(err.Error(), "max_map_count") {
			t.Errorf("%v: does not name the limit", err)
		}
	}
	_, err := Attach(key, ReadOnly()) // takes one more, too
	wantError(t, err, "attach", key, ErrNoSpace)
	wantFiles(t, dir, before...)
	if got := mappings.Load(); got != used+2 {
		t.Errorf("%d mappings are counted after failures, want %d", got, used+2)
	}
	if first.m.locks.Atomic() {
		attach(t, "second") // takes none
	}
	if err := first.Grow(1 << 20); err != nil {
		t.Error(err)
	}
	if err := first.View(nothing); !errors.Is(err, ErrNoSpace) {
		t.Errorf("View of data that cannot be mapped: %v, want ErrNoSpace", err)
	}
	if first.Size() != 1 || len(first.Data()) != 1 {
		t.Errorf("Size %d, %d bytes of data, want those of before", first.Size(), len(first.Data()))
	}
	detach(t, second)
	detach(t, third)
}
