package shm

import (
	"sync"
	"sync/atomic"
	"testing"
)

func TestCreatedMemoryIsZeroAndExact(t *testing.T) {
	store(t)
	for _, size := range []int{1, 4095, 4096, 4097, 1 << 20} {
		seg := create(t, key, size)
		if seg.Size() != size || len(seg.Data()) != size || cap(seg.Data()) != size || !seg.Attached() || seg.ReadOnly() {
			t.Errorf("size %d, %d bytes of data, want %d", seg.Size(), len(seg.Data()), size)
		}
		for i, b := range seg.Data() {
			if b != 0 {
				t.Fatalf("byte %d is %d", i, b)
			}
			seg.Data()[i] = 0xff
		}
		detach(t, seg)
	}
}

func TestAttachmentsShareTheMemory(t *testing.T) {
	store(t)
	a := create(t, key, 100)
	b, c := attach(t, key), attach(t, key, ReadOnly)
	copy(a.Data(), "shared")
	if string(b.Data()[:6]) != "shared" || string(c.Data()[:6]) != "shared" || c.Size() != 100 {
		t.Errorf("%q, %q", b.Data()[:6], c.Data()[:6])
	}
}

func TestKeysDoNotShare(t *testing.T) {
	store(t)
	a, b := create(t, "key", 100), create(t, "KEY", 200)
	a.Data()[0] = 1
	if b.Data()[0] != 0 || b.Size() != 200 {
		t.Error("another key's memory")
	}
}

func TestOpenCreatesOnce(t *testing.T) {
	store(t)
	a, created, err := Open(key, 100)
	if err != nil || !created {
		t.Fatalf("%v, %v", created, err)
	}
	defer a.Close()
	b, created, err := Open(key, 200)
	if err != nil || created || b.Size() != 100 {
		t.Fatalf("%v, %v, size %d", created, err, b.Size())
	}
	b.Close()
}

func TestOneOfManyOpensCreates(t *testing.T) {
	dir := store(t)
	for range 30 {
		var wg sync.WaitGroup
		var creators atomic.Int32
		segs := make([]*Segment, 10)
		start := make(chan struct{})
		for i := range segs {
			wg.Go(func() {
				<-start
				seg, created, err := Open(key, 10)
				if err != nil {
					t.Error(err)
					return
				}
				if created {
					creators.Add(1)
				}
				segs[i] = seg
				seg.Data()[i] = 1
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() || creators.Load() != 1 {
			t.Fatalf("%d have created", creators.Load())
		}
		if string(segs[0].Data()) != "\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" {
			t.Error("not all share the memory")
		}
		for _, seg := range segs {
			wg.Go(func() { seg.Close() })
		}
		wg.Wait()
		if left := files(t, dir); len(left) != 0 {
			t.Fatalf("left: %v", left)
		}
	}
}

// Goroutines come and go; whoever is attached has memory that nobody takes away
// or makes anew meanwhile.
func TestComingAndGoing(t *testing.T) {
	store(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 200 {
				seg, _, err := Open(key, 8)
				if err != nil {
					t.Error(err)
					return
				}
				if other, err := Attach(key); err != nil {
					t.Errorf("attached, and yet: %v", err)
				} else {
					seg.Data()[0]++
					if &seg.Data()[0] != &other.Data()[0] {
						t.Error("another memory under the same key")
					}
					other.Close()
				}
				seg.Close()
			}
		})
	}
	wg.Wait()
}

func TestCloseTwice(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	for range 2 {
		if err := seg.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Whoever has lost its presence counts as dead: its slot may be another's when it
// detaches.
func TestDetachGivesBackItsOwnSlotOnly(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	slot, other := &a.m.slot[b.a.i], uint64(42)
	slot.token.Store(other)
	detach(t, b)
	if slot.token.Load() != other || a.m.head.refs.Load() != 2 {
		t.Errorf("token %d, %d counted", slot.token.Load(), a.m.head.refs.Load())
	}
}
