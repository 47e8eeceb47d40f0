package shm

import (
	"context"
	"os"
	"testing"

	"qshm/lockfile"
)

func TestMaxAttachmentsIsExact(t *testing.T) {
	store(t)
	for _, n := range []int{1, 2, 219, 220, 221, 300} {
		segs := []*Segment{create(t, key, 1, MaxAttachments(n))}
		for range n - 1 {
			segs = append(segs, attach(t, key))
		}
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNoSpace)
		if info := must(Stat(key))(t); info.Attached != n {
			t.Errorf("%d attached, want %d", info.Attached, n)
		}
		for _, seg := range segs {
			detach(t, seg)
		}
	}
}

func TestMostAttachmentsThereCanBe(t *testing.T) {
	store(t)
	seg := create(t, key, 10, MaxAttachments(maxSlots))
	seg.Data()[9] = 1
	// All slots but the last are taken, by this process.
	for i := 1; i < maxSlots-1; i++ {
		seg.m.slot[i].token.Store(seg.a.h.presence.Token())
		seg.m.head.refs.Add(1)
	}
	last := attach(t, key)
	if last.a.i != maxSlots-1 {
		t.Fatalf("has slot %d", last.a.i)
	}
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNoSpace)
	lock(t, last)
	if ok, _ := seg.TryLock(); ok {
		t.Error("the last slot cannot lock")
	}
	if info := must(Stat(key))(t); info.Attached != maxSlots || info.Owner == nil {
		t.Errorf("%d attached, owner %v", info.Attached, info.Owner)
	}
	for i := 1; i < maxSlots-1; i++ {
		seg.m.slot[i].token.Store(0)
		seg.m.head.refs.Add(^uint32(0))
	}
}

func TestSlotsOfTheDeadAreTaken(t *testing.T) {
	store(t)
	create(t, key, 1, MaxAttachments(2))
	for range 3 {
		runThenKill(t, "attach and die", key)
	}
	attach(t, key)
}

func TestDirIsTheStore(t *testing.T) {
	dir := store(t)
	other := dirAt(t, "/dev/shm")
	seg := create(t, key, 1, Dir(other))
	if len(files(t, dir)) != 0 || len(files(t, other)) == 0 {
		t.Error("not in the store that was named")
	}
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNotExist)
	detach(t, seg)
}

func TestWaitingAtTheDoorEndsWithItsContext(t *testing.T) {
	dir := store(t)
	path := pathOf(dir, key)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	door, err := lockfile.Enter(context.Background(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer door.Remove()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range byKey {
		if c.op == "stat" {
			continue // waits for nobody
		}
		wantError(t, c.call(key, WithContext(ctx)), c.op, key, context.Canceled)
	}
}

// Nothing that is about segments waits for who holds the lock.
func TestNothingWaitsBehindAHeldLock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	lock(t, seg)
	other := attach(t, key)
	must(Stat(key))(t)
	must(List())(t)
	must(Sweep())(t)
	detach(t, other)
	if _, err := Create(key, 1); err == nil {
		t.Error("created")
	}
	if err := Remove(key); err != nil {
		t.Error(err)
	}
}
