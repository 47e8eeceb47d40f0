package shm

import (
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

func wantStatus(t *testing.T, want Status) {
	t.Helper()
	if info, err := Stat(key); err != nil || info.Status != want {
		t.Errorf("Stat: %v, %v; want %v", info.Status, err, want)
	}
}

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

func TestAnyBytesAreAKey(t *testing.T) {
	store(t)
	for _, key := range []string{"../../x", "\x00", "\xff\xfe", "nul", string(make([]byte, 1<<16)), "共有メモリ"} {
		seg := create(t, key, 1)
		if info := must(Stat(key))(t); info.Key != key || seg.Key() != key {
			t.Errorf("%.20q is called %.20q", key, info.Key)
		}
		attach(t, key)
	}
	for _, info := range must(List())(t) {
		if info.Status != StatusLive || info.Key == "" {
			t.Errorf("List: %+v", info)
		}
	}
}

func TestLastDetachDestroys(t *testing.T) {
	dir := store(t)
	a := create(t, key, 100)
	b := attach(t, key)
	detach(t, a)
	wantStatus(t, StatusLive)
	b.Data()[0] = 1
	detach(t, b)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNotExist)
}

// One who attaches finds no room for the data, after the other who was attached has
// seen it there, and so left the segment to it.
func TestAttachThatFailsAsTheLastDestroys(t *testing.T) {
	store(t)
	first := create(t, key, 100, MaxAttachments(2))
	other := attach(t, key)
	detach(t, first) // its slot is below the one that the process has: to be taken inside the door
	m := other.m
	m.mu.Lock()
	failed := make(chan error)
	go func() {
		_, err := Attach(key, ReadOnly)
		failed <- err
	}()
	eventually(t, "the slot is taken", func() bool { return m.slot[0].token.Load() != 0 })
	detach(t, other)
	m.dataOff++ // where nothing can be mapped
	m.mu.Unlock()
	if <-failed == nil {
		t.Error("mapped from the middle of a page")
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

// garbage are files as crashes leave them.
func garbage(t *testing.T) map[string][]byte {
	s := must(newShape(100, 0))(t)
	crashed := func(state uint32, token uint64) []byte {
		b := make([]byte, s.dataOff+s.size)
		copy(b, s.fresh(key))
		headerAt(b).state.Store(state)
		if token != 0 {
			headerAt(b).refs.Store(1)
			slotsAt(b, s.slots)[0].token.Store(token)
		}
		return b
	}
	return map[string][]byte{
		"empty":                   nil,
		"zeros":                   make([]byte, s.dataOff+s.size),
		"making":                  crashed(stateMaking, 0),
		"making, claimed":         crashed(stateMaking, 42),
		"making, short":           crashed(stateMaking, 0)[:minHeader],
		"live, nobody attached":   crashed(stateLive, 0),
		"live, its process dead":  crashed(stateLive, 42),
		"dead":                    crashed(stateDead, 0),
		"dead, its process too":   crashed(stateDead, 42),
		"removed, its process so": crashed(stateRemoved, 42),
	}
}

// found leaves content under the key, together with another process's presence.
func found(t *testing.T, content []byte) (dir string) {
	t.Helper()
	dir = store(t)
	if err := os.WriteFile(pathOf(dir, key), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestGarbageIsNoSegment(t *testing.T) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) {
			dir := found(t, content)
			wantStatus(t, StatusDead)
			if list := must(List())(t); len(list) != 1 || list[0].Status != StatusDead || list[0].Attached != 0 {
				t.Errorf("List: %+v", list)
			}
			if left := files(t, dir); len(left) != 1 {
				t.Errorf("looking has changed it: %v", left)
			}
			_, err := Attach(key)
			wantError(t, err, "attach", key, ErrNotExist)
			if left := files(t, dir); len(left) != 0 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

func TestCreateReplacesGarbage(t *testing.T) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) {
			found(t, content)
			seg := create(t, key, 200)
			if seg.Size() != 200 || must(seg.Info())(t).Attached != 1 {
				t.Errorf("size %d", seg.Size())
			}
		})
	}
}

func TestOpenReplacesGarbage(t *testing.T) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) {
			found(t, content)
			seg, created, err := Open(key, 200)
			if err != nil || !created {
				t.Fatalf("%v, %v", created, err)
			}
			seg.Close()
		})
	}
}

func TestRemoveRemovesGarbage(t *testing.T) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) {
			found(t, content)
			if err := Remove(key); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestSweepRemovesGarbage(t *testing.T) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) {
			found(t, content)
			if swept := must(Sweep())(t); len(swept) != 1 || swept[0].Status != StatusDead {
				t.Errorf("%+v", swept)
			}
		})
	}
}

func TestSweepLeavesTheLiving(t *testing.T) {
	dir := store(t)
	create(t, key, 1)
	before := len(files(t, dir))
	if swept := must(Sweep())(t); len(swept) != 0 {
		t.Errorf("%+v", swept)
	}
	if len(files(t, dir)) != before {
		t.Errorf("left: %v", files(t, dir))
	}
	wantStatus(t, StatusLive)
}

func TestSweepLeavesOtherFiles(t *testing.T) {
	dir := dirAt(t, "/dev/shm")
	for _, name := range []string{"notes", ".live", ".live.x", "frames-0", "." + filepath.Base(pathOf("", key))} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := len(files(t, dir))
	must(Sweep(Dir(dir)))(t)
	if after := files(t, dir); len(after) != before {
		t.Errorf("left: %v", after)
	}
}

func TestDeadAreNotCounted(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	runThenKill(t, "attach and die", key)
	for _, info := range []Info{must(Stat(key))(t), must(seg.Info())(t), must(List())(t)[0]} {
		if info.Attached != 1 || len(info.Attachments) != 1 || info.Attachments[0].PID != os.Getpid() || info.Status != StatusLive {
			t.Errorf("%+v", info)
		}
	}
}

func TestCrashOfTheLastLeavesNothing(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 1)
	runThenKill(t, "attach and die", key)
	detach(t, seg)
	must(Sweep())(t)
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestRemovedSegmentLivesOn(t *testing.T) {
	store(t)
	a, b := create(t, key, 100), attach(t, key)
	if err := Remove(key); err != nil {
		t.Fatal(err)
	}
	_, err := Stat(key)
	wantError(t, err, "stat", key, ErrNotExist)
	next := create(t, key, 200)
	copy(a.Data(), "old")
	lock(t, a)
	if ok, _ := b.TryLock(); ok {
		t.Error("the lock does not exclude any more")
	}
	if ok, _ := next.TryLock(); !ok {
		t.Error("the successor has the same lock")
	}
	if string(b.Data()[:3]) != "old" || next.Data()[0] != 0 {
		t.Error("not the memory that it was")
	}
	if info := must(a.Info())(t); info.Status != StatusRemoved || info.Attached != 2 {
		t.Errorf("%+v", info)
	}
	detach(t, a)
	detach(t, b)
	wantStatus(t, StatusLive)
}

// Somebody has removed the store with all that is in it.
func TestStoreRemovedMeanwhile(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 1)
	if err := os.RemoveAll(dir); err != nil {
		t.Skip(err)
	}
	next := create(t, key, 1)
	detach(t, seg)
	wantStatus(t, StatusLive)
	detach(t, next)
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

func TestInfoDescribes(t *testing.T) {
	dir := store(t)
	a := create(t, key, 100)
	attach(t, key, ReadOnly)
	lock(t, a)
	for _, info := range []Info{must(a.Info())(t), must(Stat(key))(t), must(List())(t)[0]} {
		if info.Key != key || info.Path != pathOf(dir, key) || info.Name != filepath.Base(info.Path) || info.Size != 100 ||
			info.Created.IsZero() || info.Attached != 2 || info.Attachments[0].ReadOnly || !info.Attachments[1].ReadOnly ||
			info.Owner == nil || info.Owner.PID != os.Getpid() || info.Owner.ReadOnly || info.Version != 0 || info.Status != StatusLive {
			t.Errorf("%+v", info)
		}
	}
	unlock(t, a)
	if info := must(Stat(key))(t); info.Owner != nil || info.Version != 1 {
		t.Errorf("%+v", info)
	}
}
