package shm

import (
	"errors"
	"math"
	"os"
	"strings"
	"testing"
)

// Any process that may write the file can write any size into the header. The calls
// report it, or go on with the size of before, and nothing faults.
func TestSizeOfAnyValueWhileAttached(t *testing.T) {
	const size = 5000
	for name, c := range map[string]struct {
		size uint64
		file int64 // how much is added to the file
	}{
		"zero":                           {0, 0},
		"smaller":                        {size - 1, 0},
		"larger than the file":           {size + 1, 0},
		"much larger than the file":      {1 << 40, 0},
		"the largest int":                {math.MaxInt64, 0},
		"the smallest negative int":      {1 << 63, 0},
		"the largest":                    {math.MaxUint64, 0},
		"with the header, it overflows":  {math.MaxUint64 - minHeader + 1, 0},
		"larger than 32 bits":            {1<<32 + size, 0},
		"larger than 32 bits, negative":  {1<<32 - 1, 0},
		"one less than the file has":     {size + 9999, 10000},
		"one more than the file has":     {size + 10001, 10000},
		"the file was truncated":         {size + 1, -size},
		"the header was truncated":       {size + 1, -size - 1000},
		"the header was truncated, huge": {1 << 63, -size - 1000},
		"the header was truncated, -1":   {math.MaxUint64, -size - 1000},
	} {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			seg := create(t, key, size, Dir(dir))
			reader, other := attach(t, key, ReadOnly(), Dir(dir)), otherProcess(t, seg)
			must(other.m.view(false))(t)
			if err := os.Truncate(seg.m.path, int64(seg.m.dataOff)+size+c.file); err != nil {
				t.Skip("this system does not change the size of a mapped file:", err)
			}
			seg.head.size.Store(c.size)
			grown := c.file >= 0 && c.size > size && c.size <= uint64(size+c.file)
			for name, s := range map[string]*Segment{"writer": seg, "reader": reader, "other process": other} {
				want := size
				if grown {
					want = int(c.size)
				}
				if data := s.Data(); len(data) != want || s.Size() != want {
					t.Errorf("%s: %d bytes of data, size %d, want %d", name, len(data), s.Size(), want)
				}
				for op, call := range map[string]func() error{
					"view":     func() error { return s.View(nothing) },
					"snapshot": func() error { _, _, err := s.Snapshot(make([]byte, 1)); return err },
					"read":     func() error { _, err := s.ReadAt(make([]byte, 1), 0); return err },
					"load":     func() error { _, err := Load[byte](s, 0); return err },
				} {
					if err := call(); grown {
						if err != nil {
							t.Errorf("%s: %v", name, err)
						}
					} else if wantError(t, err, op, key, ErrCorrupt); !strings.Contains(err.Error(), seg.m.path) {
						t.Errorf("%v: does not name the file", err)
					}
				}
				if _, err := Value[byte](s, 0); errors.Is(err, ErrCorrupt) == grown {
					t.Errorf("%s: Value: %v", name, err)
				}
				if !s.ReadOnly() && !grown {
					wantError(t, s.Update(nothing), "update", key, ErrCorrupt)
					_, err := s.WriteAt([]byte{1}, 0)
					wantError(t, err, "write", key, ErrCorrupt)
					wantError(t, s.Grow(size+1), "grow", key, ErrCorrupt)
				}
				if info, err := s.Info(); err != nil || info.Size < 0 {
					t.Errorf("%s: Info: size %d, %v", name, info.Size, err)
				}
				if ok, err := s.TryLock(); !ok || err != nil || s.Abandoned() {
					t.Errorf("%s: the lock was left behind: %v, %v, abandoned: %v", name, ok, err, s.Abandoned())
				}
				unlock(t, s)
			}
			if info, err := Stat(key, Dir(dir)); err == nil && info.Size < 0 {
				t.Errorf("Stat: size %d", info.Size)
			}
		})
	}
}
