package shm

import (
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

type point struct{ X, Y int32 }

type record struct {
	ID     uint64
	At     [3]point
	Name   [16]byte
	Hits   atomic.Int64
	Inner  struct{ A, B float64 }
	Flag   atomic.Bool
	Count  atomic.Uint32
	Matrix [2][2]complex64
}

func TestValueIsTheMemory(t *testing.T) {
	store(t)
	seg, other := create(t, key, 4096), attach(t, key)
	a := must(Value[record](seg, 64))(t)
	b := must(Value[record](other, 64))(t)
	a.ID, a.At[2].Y, a.Inner.B, a.Matrix[1][0] = 42, -7, 2.5, 3i
	copy(a.Name[:], "name")
	a.Hits.Add(5)
	a.Flag.Store(true)
	if b.ID != 42 || b.At[2].Y != -7 || b.Inner.B != 2.5 || b.Matrix[1][0] != 3i || string(b.Name[:4]) != "name" ||
		b.Hits.Load() != 5 || !b.Flag.Load() || b.Count.Load() != 0 {
		t.Error("another attachment has other values")
	}
	if unsafe.Pointer(a) != unsafe.Pointer(&seg.Data()[64]) {
		t.Error("the value is not in the data")
	}
}

func TestAtomicsWorkBetweenAttachments(t *testing.T) {
	store(t)
	segs := []*Segment{create(t, key, 8), attach(t, key)}
	var wg sync.WaitGroup
	for i := range 4 {
		n := must(Value[atomic.Int64](segs[i%2], 0))(t)
		wg.Go(func() {
			for range 1000 {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n := must(Value[atomic.Int64](segs[0], 0))(t); n.Load() != 4000 {
		t.Errorf("counted %d, want 4000", n.Load())
	}
}

func TestSliceIsTheMemory(t *testing.T) {
	store(t)
	seg := create(t, key, 80)
	s := must(Slice[point](seg, 16, 8))(t)
	if len(s) != 8 || cap(s) != 8 {
		t.Fatalf("length %d, capacity %d, want 8", len(s), cap(s))
	}
	s[7].Y = 1
	if n := must(Value[int32](seg, 76))(t); *n != 1 {
		t.Error("the value is not in the data")
	}
	must(Slice[byte](seg, 79, 1))(t)
}

func TestViewsThatReachOutsideAreErrSize(t *testing.T) {
	store(t)
	seg := create(t, key, 80)
	for _, off := range []int{-8, 80, 76, 1 << 30, -1 << 31} {
		_, err := Value[uint64](seg, off)
		wantError(t, err, "view", key, ErrSize)
	}
	for _, c := range [][2]int{{0, 11}, {8, 10}, {0, 0}, {0, -1}, {80, 1}, {0, 1 << 30}, {0, int(^uint(0) >> 1)}} {
		_, err := Slice[uint64](seg, c[0], c[1])
		wantError(t, err, "view", key, ErrSize)
	}
}

func refused[T any](t *testing.T, seg *Segment, off int, kind error) {
	t.Helper()
	_, err := Value[T](seg, off)
	wantError(t, err, "view", key, kind)
	_, err = Slice[T](seg, off, 1)
	wantError(t, err, "view", key, kind)
}

func TestViewsOfTypesWithPointersAreErrType(t *testing.T) {
	store(t)
	seg := create(t, key, 4096)
	refused[string](t, seg, 0, ErrType)
	refused[[]byte](t, seg, 0, ErrType)
	refused[*int](t, seg, 0, ErrType)
	refused[map[int]int](t, seg, 0, ErrType)
	refused[chan int](t, seg, 0, ErrType)
	refused[func()](t, seg, 0, ErrType)
	refused[any](t, seg, 0, ErrType)
	refused[error](t, seg, 0, ErrType)
	refused[unsafe.Pointer](t, seg, 0, ErrType)
	refused[atomic.Pointer[int]](t, seg, 0, ErrType)
	refused[atomic.Value](t, seg, 0, ErrType)
	refused[[2]string](t, seg, 0, ErrType)
	refused[struct {
		A int
		B struct{ C [3]*int }
	}](t, seg, 0, ErrType)
}

func TestViewsOfTypesWithoutSizeAreErrType(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	refused[struct{}](t, seg, 0, ErrType)
	refused[[0]int](t, seg, 0, ErrType)
}

func TestMisalignedViewsAreErrType(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	refused[atomic.Int64](t, seg, 4, ErrType)
	refused[int32](t, seg, 2, ErrType)
	refused[point](t, seg, 1, ErrType)
	if _, err := Value[[3]byte](seg, 1); err != nil {
		t.Error(err)
	}
}

func TestViewsOfAReadOnlyAttachmentAreTheMemory(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly())
	n, all := must(Value[atomic.Int64](reader, 8))(t), must(Slice[int32](reader, 0, 25))(t)
	must(Value[atomic.Int64](seg, 8))(t).Store(42)
	if n.Load() != 42 || all[2] == all[3] || len(all) != 25 {
		t.Errorf("%d, %v", n.Load(), all)
	}
}

func TestLoadAndStoreRefuseTypesWithPointers(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	_, err := Load[string](seg, 0)
	wantError(t, err, "load", key, ErrType)
	_, err = Load[struct{}](seg, 0)
	wantError(t, err, "load", key, ErrType)
	wantError(t, Store(seg, 0, []int{1}), "store", key, ErrType)
	wantError(t, Store(seg, 0, [0]int{}), "store", key, ErrType)
	if seg.Version() != 0 {
		t.Error("the version has moved, though nothing was stored")
	}
}
