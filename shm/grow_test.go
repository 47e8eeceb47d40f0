package shm

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"sync"
	"testing"
)

func TestGrowAddsZeros(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 10)
	copy(seg.Data(), "0123456789")
	for _, size := range []int{11, 100, 4096, 4097, 5000, 1 << 20, 1<<20 + 1, 3 << 20} {
		old := seg.Data()
		if err := seg.Grow(size); err != nil {
			t.Fatal(err)
		}
		data := seg.Data()
		if seg.Size() != size || len(data) != size || cap(data) != size {
			t.Fatalf("Size %d, %d bytes of data (%d), want %d", seg.Size(), len(data), cap(data), size)
		}
		if string(data[:10]) != "0123456789" || len(bytes.TrimLeft(data[10:], "\x00")) != 0 {
			t.Fatalf("after growing to %d, the data are not those of before and zeros", size)
		}
		old[0]++ // slices from before stay valid, and are the same memory
		if data[0] != old[0] {
			t.Fatal("a slice from before is other memory")
		}
		old[0]--
		if info := must(Stat(key))(t); info.Size != int64(size) {
			t.Errorf("Stat: %d bytes, want %d", info.Size, size)
		}
		if info := must(seg.Info())(t); info.Size != int64(size) {
			t.Errorf("Info: %d bytes, want %d", info.Size, size)
		}
		data[size-1] = 1 // the memory is there
		data[size-1] = 0
	}
	if info := must(os.Stat(segmentPath(dir, key)))(t); info.Size() != int64(seg.m.dataOff)+3<<20 {
		t.Errorf("the file has %d bytes", info.Size())
	}
}

func TestGrowToASizeThatItHasAlreadyChangesNothing(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	for _, size := range []int{1, 99, 100} {
		if err := seg.Grow(size); err != nil || seg.Size() != 100 {
			t.Errorf("Grow(%d): %v, size %d, want 100", size, err, seg.Size())
		}
	}
}

func TestGrowRefusesImpossibleSizes(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	for _, size := range []int{0, -1, math.MinInt, math.MaxInt} {
		wantError(t, seg.Grow(size), "grow", key, ErrSize)
	}
	if math.MaxInt > math.MaxInt32 {
		for _, size := range []int{math.MaxInt / 2, math.MaxInt >> 20} {
			wantError(t, seg.Grow(size), "grow", key, ErrNoSpace)
		}
	}
	if info := must(os.Stat(seg.m.path))(t); info.Size() != int64(seg.m.dataOff)+100 || seg.Size() != 100 {
		t.Errorf("the file has %d bytes, the segment %d, want as before", info.Size(), seg.Size())
	}
}

func TestGrowIsSeenByEveryAttachment(t *testing.T) {
	store(t)
	seg := create(t, key, 10)
	reader, other := attach(t, key, ReadOnly()), otherProcess(t, seg)
	must(other.m.view(false))(t)
	for i, size := range []int{1000, 10000, 100000} {
		grower := []*Segment{seg, other}[i%2]
		if err := grower.Grow(size); err != nil {
			t.Fatal(err)
		}
		last := byte(i + 1)
		must(grower.WriteAt([]byte{last}, int64(size-1)))(t)
		for name, s := range map[string]*Segment{"creator": seg, "reader": reader, "other process": other, "newcomer": attach(t, key)} {
			if s.Size() != size || len(s.Data()) != size || s.Data()[size-1] != last {
				t.Errorf("%s: size %d, %d bytes of data, want %d", name, s.Size(), len(s.Data()), size)
			}
			if err := s.View(func(data []byte) error {
				if len(data) != size {
					t.Errorf("%s: View with %d bytes, want %d", name, len(data), size)
				}
				return nil
			}); err != nil {
				t.Errorf("%s: %v", name, err)
			}
			p := make([]byte, size+1)
			if n, _, err := s.Snapshot(p); n != size || err != nil || p[size-1] != last {
				t.Errorf("%s: Snapshot: %d, %v, want %d bytes", name, n, err, size)
			}
			if n, err := s.ReadAt(p[:2], int64(size-1)); n != 1 || err != io.EOF || p[0] != last {
				t.Errorf("%s: ReadAt: %d, %v", name, n, err)
			}
			if v, err := Load[byte](s, size-1); v != last || err != nil {
				t.Errorf("%s: Load: %d, %v", name, v, err)
			}
			if v, err := Value[byte](s, size-1); err != nil || *v != last {
				t.Errorf("%s: Value: %v", name, err)
			}
			if _, err := Value[byte](s, size); !errors.Is(err, ErrSize) {
				t.Errorf("%s: Value beyond the end: %v, want ErrSize", name, err)
			}
		}
	}
}

// The first call after another attachment has grown the segment uses the new size,
// whatever the call.
func TestEachCallSeesTheNewSize(t *testing.T) {
	last := func(s *Segment) int64 { return int64(s.head.size.Load()) - 1 }
	for name, call := range map[string]func(s *Segment) error{
		"Data":     func(s *Segment) error { s.Data()[last(s)] = 1; return nil },
		"Size":     func(s *Segment) error { return s.View(func(data []byte) error { data[s.Size()-1] = 1; return nil }) },
		"WriteAt":  func(s *Segment) error { _, err := s.WriteAt([]byte{1}, last(s)); return err },
		"Store":    func(s *Segment) error { return Store(s, int(last(s)), byte(1)) },
		"Load":     func(s *Segment) error { _, err := Load[byte](s, int(last(s))); return err },
		"Value":    func(s *Segment) error { _, err := Value[byte](s, int(last(s))); return err },
		"Slice":    func(s *Segment) error { _, err := Slice[byte](s, 0, int(last(s))+1); return err },
		"ReadAt":   func(s *Segment) error { _, err := s.ReadAt(make([]byte, 1), last(s)); return err },
		"Update":   func(s *Segment) error { return s.Update(func(data []byte) error { data[last(s)] = 1; return nil }) },
		"Grow":     func(s *Segment) error { return s.Grow(int(last(s)) + 2) },
		"Snapshot": func(s *Segment) error { _, _, err := s.Snapshot(make([]byte, 1<<20)); return err },
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			seg := create(t, key, 10)
			other := otherProcess(t, seg)
			must(other.m.view(false))(t)
			for _, size := range []int{20, 10000, 10001, 1 << 18} {
				if err := seg.Grow(size); err != nil {
					t.Fatal(err)
				}
				if err := call(other); err != nil {
					t.Errorf("after growing to %d: %v", size, err)
				}
			}
		})
	}
}

// append to the data must not write into the room that a mapping has for growing.
func TestAppendToTheDataLeavesTheMemory(t *testing.T) {
	store(t)
	seg := create(t, key, 4096)
	for _, size := range []int{8000, 8001} {
		if err := seg.Grow(size); err != nil {
			t.Fatal(err)
		}
	}
	grown := append(seg.Data(), bytes.Repeat([]byte("x"), 1000)...)
	if err := seg.Grow(9000); err != nil {
		t.Fatal(err)
	}
	if len(grown) != 9001 || len(bytes.Trim(seg.Data(), "\x00")) != 0 {
		t.Error("the new bytes are not zero")
	}
}

// Growing step by step, as an editor does with each keystroke, must not use up the
// mappings of the process.
func TestGrowingOftenTakesFewMappings(t *testing.T) {
	if !mapsBeyondEnd {
		t.Skip("each size takes a mapping here")
	}
	store(t)
	seg := create(t, key, 1)
	before := mappings.Load()
	for size := 2; size <= 1<<20; size += 1000 {
		if err := seg.Grow(size); err != nil {
			t.Fatal(err)
		}
		seg.Data()[size-1] = 1
	}
	if n := mappings.Load() - before; n > 24 {
		t.Errorf("%d mappings more after a thousand times", n)
	}
}

func TestGrowWhileOthersUseTheData(t *testing.T) {
	store(t)
	segs := []*Segment{create(t, key, 1), attach(t, key), attach(t, key, ReadOnly())}
	segs = append(segs, otherProcess(t, segs[0]))
	must(segs[3].m.view(false))(t)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, s := range segs {
		wg.Go(func() {
			last, buf := 0, make([]byte, 1<<17)
			for {
				select {
				case <-stop:
					return
				default:
				}
				size := s.Size()
				data := s.Data()
				if size < last || len(data) < size {
					t.Errorf("size %d and then %d bytes after %d", size, len(data), last)
					return
				}
				last = size
				if n, _, err := s.Snapshot(buf); err != nil || n < size {
					t.Errorf("Snapshot: %d, %v, want at least %d bytes", n, err, size)
					return
				}
				if err := s.View(func(data []byte) error { _ = data[len(data)-1]; return nil }); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for size := 2; size <= 1<<17; size += 331 {
		if err := segs[size%2].Grow(size); err != nil {
			t.Error(err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

func TestManyGrowAtOnce(t *testing.T) {
	store(t)
	segs := []*Segment{create(t, key, 1), attach(t, key)}
	segs = append(segs, otherProcess(t, segs[0]))
	must(segs[2].m.view(false))(t)
	var wg sync.WaitGroup
	for i := range 6 {
		wg.Go(func() {
			for n := range 50 {
				size := 1 + n*1000 + i
				if err := segs[i%3].Grow(size); err != nil {
					t.Error(err)
				}
				if got := segs[i%3].Size(); got < size {
					t.Errorf("size %d after Grow(%d)", got, size)
				}
			}
		})
	}
	wg.Wait()
	for _, s := range segs {
		if s.Size() != 49006 {
			t.Errorf("size %d, want the largest that was asked for, 49006", s.Size())
		}
	}
}

// A process that dies in Grow leaves the old size, and a file that is longer.
func TestGrowAfterOneThatDied(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	for _, size := range []int64{50000, 200} {
		if err := os.Truncate(seg.m.path, int64(seg.m.dataOff)+size); err != nil {
			t.Skip("this system does not change the size of a mapped file:", err)
		}
		if seg.Size() != 100 || attach(t, key).Size() != 100 {
			t.Errorf("size %d, want 100", seg.Size())
		}
	}
	if err := seg.Grow(10000); err != nil {
		t.Fatal(err)
	}
	if data := seg.Data(); len(data) != 10000 || len(bytes.Trim(data, "\x00")) != 0 {
		t.Errorf("%d bytes, or not all zero", len(data))
	}
}
