package test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"qshm/shm"
)

// What a process finds after others have attached, detached and died.

func pids(info shm.Info) []int {
	var list []int
	for _, a := range info.Attachments {
		list = append(list, a.PID)
	}
	slices.Sort(list)
	return list
}

func wantPIDs(t *testing.T, info shm.Info, procs ...*proc) {
	t.Helper()
	want := []int{}
	for _, p := range procs {
		want = append(want, p.pid)
	}
	slices.Sort(want)
	if got := pids(info); !slices.Equal(got, want) || info.Attached != len(want) {
		t.Errorf("attached: %d, processes %v, want %v", info.Attached, got, want)
	}
}

func wantError(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error: %v, want: %v", err, kind)
	}
}

func TestProcessesShareTheMemory(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine := a.create("k", 64)
	theirs := b.attach("k")
	mine.poke(0, "hello")
	if got := theirs.peek(0, 5); got != "hello" {
		t.Errorf("the other process reads %q", got)
	}
	theirs.write(5, " there")
	if got := mine.read(0, 11); got != "hello there" {
		t.Errorf("the first process reads %q", got)
	}
	if mine.size() != 64 || theirs.size() != 64 {
		t.Errorf("sizes %d and %d, want 64", mine.size(), theirs.size())
	}
}

func TestStatIsExactRightAfterAKill(t *testing.T) {
	st := newStore(t)
	a, b, c, d := st.start(), st.start(), st.start(), st.start()
	a.create("k", 64)
	b.attach("k")
	b.attach("k", opts{ReadOnly: true})
	c.attach("k")
	wantPIDs(t, d.stat("k"), a, b, b, c)
	b.kill()
	wantPIDs(t, d.stat("k"), a, c)
	wantPIDs(t, d.stat("k"), a, c) // Stat has changed nothing
	a.kill()
	wantPIDs(t, d.stat("k"), c)
	c.kill()
	info := d.stat("k")
	wantPIDs(t, info)
	if info.Status != shm.StatusDead {
		t.Errorf("status %v, want dead", info.Status)
	}
}

func TestListShowsLiveAttachmentsAndTheOwnerOfTheLock(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	a.create("one", 10)
	held := b.create("two", 20)
	b.attach("one", opts{ReadOnly: true})
	held.lock()
	list := a.list()
	slices.SortFunc(list, func(x, y shm.Info) int { return strings.Compare(x.Key, y.Key) })
	if len(list) != 2 || list[0].Key != "one" || list[1].Key != "two" {
		t.Fatalf("list: %+v", list)
	}
	wantPIDs(t, list[0], a, b)
	wantPIDs(t, list[1], b)
	if list[0].Owner != nil || list[1].Owner == nil || list[1].Owner.PID != b.pid {
		t.Errorf("owners %v and %v, want none and process %d", list[0].Owner, list[1].Owner, b.pid)
	}
	b.kill()
	if info := a.stat("two"); info.Owner != nil || info.Status != shm.StatusDead {
		t.Errorf("after the owner's death: owner %v, status %v", info.Owner, info.Status)
	}
}

func TestLastDetachDestroys(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	one, two := a.create("k", 64), a.attach("k")
	three := b.attach("k")
	one.detach()
	three.detach()
	if st.files()[0] == "" || a.stat("k").Attached != 1 {
		t.Error("destroyed before the last detach")
	}
	two.detach()
	st.wantFiles() // without a Sweep
	_, err := b.tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
}

func TestSegmentOutlivesItsCreator(t *testing.T) {
	for _, end := range []struct {
		name string
		of   func(*proc, *attachment)
	}{
		{"detach", func(_ *proc, s *attachment) { s.detach() }},
		{"exit", func(p *proc, _ *attachment) { p.exit() }},
		{"kill", func(p *proc, _ *attachment) { p.kill() }},
	} {
		t.Run(end.name, func(t *testing.T) {
			st := newStore(t)
			a, b, c := st.start(), st.start(), st.start()
			mine := a.create("k", 64)
			mine.write(0, "kept")
			theirs := b.attach("k")
			end.of(a, mine)
			if got := theirs.read(0, 4); got != "kept" {
				t.Errorf("read %q", got)
			}
			third := c.attach("k")
			theirs.lock() // there is still one lock
			if third.tryLock() {
				t.Error("two attachments hold the lock")
			}
			theirs.unlock()
			_, err := c.tryCreate("k", 64)
			wantError(t, err, shm.ErrExist)
		})
	}
}

// Every call works the first time after the last process was killed.
func TestFirstCallAfterAllProcessesDied(t *testing.T) {
	for _, first := range []struct {
		name  string
		check func(*testing.T, *proc)
	}{
		{"create", func(t *testing.T, p *proc) {
			if got := p.create("k", 32).read(0, 4); got != "\x00\x00\x00\x00" {
				t.Errorf("the new memory contains %q", got)
			}
		}},
		{"open", func(t *testing.T, p *proc) {
			s, created := p.open("k", 32)
			if !created || s.size() != 32 {
				t.Errorf("created %v, size %d", created, s.size())
			}
		}},
		{"attach", func(t *testing.T, p *proc) {
			_, err := p.tryAttach("k")
			wantError(t, err, shm.ErrNotExist)
			p.st.wantFiles() // Attach has destroyed the garbage
		}},
		{"remove", func(t *testing.T, p *proc) {
			p.remove("k")
			p.st.wantFiles()
		}},
		{"sweep", func(t *testing.T, p *proc) {
			if swept := p.sweep(); len(swept) != 1 || swept[0].Key != "k" {
				t.Errorf("swept %+v", swept)
			}
			p.st.wantFiles()
		}},
		{"create of another key", func(t *testing.T, p *proc) {
			p.create("other", 32).detach()
			p.st.wantFiles("k") // its lock was abandoned: the next process with that key learns it
			p.sweep()
			p.st.wantFiles()
		}},
	} {
		t.Run(first.name, func(t *testing.T) {
			st := newStore(t)
			a, b, c := st.start(), st.start(), st.start()
			mine := a.create("k", 64)
			mine.write(0, "old")
			b.attach("k")
			mine.lock()
			a.kill()
			b.kill()
			first.check(t, c)
		})
	}
}

func TestOfManyOpensOneCreates(t *testing.T) {
	n := 50
	if testing.Short() {
		n = 10
	}
	st := newStore(t)
	procs := st.startN(n)
	var calls []*pending
	for _, p := range procs {
		calls = append(calls, p.begin(request{Op: "openatonce", Key: key("k"), N: 64}))
	}
	for _, p := range procs {
		p.do(request{Op: "go"})
	}
	created := 0
	for i, c := range calls {
		a := c.must()
		if a.OK {
			created++
		}
		s := &attachment{p: procs[i], handle: a.Handle}
		s.do(request{Op: "count", N: 20})
	}
	if created != 1 {
		t.Errorf("%d calls of Open created the segment, want 1", created)
	}
	info := procs[0].stat("k")
	wantPIDs(t, info, procs...)
	if info.Version != uint32(20*n) {
		t.Errorf("version %d, want %d: not all processes use the same segment", info.Version, 20*n)
	}
}

// Only calls that take the lock wait for its owner.
func TestOtherCallsDoNotWaitForTheLock(t *testing.T) {
	for _, owner := range []string{"running", "stopped"} {
		t.Run(owner, func(t *testing.T) {
			st := newStore(t)
			a, b := st.start(), st.start()
			held := a.create("k", 64)
			kept := b.attach("k")
			held.lock()
			if owner == "stopped" {
				a.stop()
				defer a.cont()
			}
			_, err := b.tryCreate("k", 64)
			wantError(t, err, shm.ErrExist)
			s := b.attach("k")
			if info := b.stat("k"); info.Owner == nil || info.Owner.PID != a.pid || info.Attached != 3 {
				t.Errorf("stat: %+v", info)
			}
			if len(b.list()) != 1 {
				t.Error("List does not show the segment")
			}
			s.detach()
			kept.detach()
			if s, created := b.open("k", 64); created {
				t.Error("Open created a second segment")
			} else {
				s.detach()
			}
			b.sweep()
			if held := b.stat("k").Owner; held == nil {
				t.Error("a failed Create, or Attach and Detach, took the lock from its owner")
			}
			b.remove("k")
		})
	}
}

func TestAttachedProcessesKeepARemovedSegment(t *testing.T) {
	st := newStore(t)
	a, b, c := st.start(), st.start(), st.start()
	old1, old2 := a.create("k", 64), b.attach("k")
	old1.write(0, "old")
	c.remove("k")
	_, err := c.tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
	fresh := c.create("k", 32) // the key is free at once
	fresh.write(0, "new")
	if got := old2.read(0, 3); got != "old" {
		t.Errorf("the removed segment contains %q", got)
	}
	old1.lock()
	if old2.tryLock() {
		t.Error("the removed segment has lost its lock")
	}
	if !fresh.tryLock() {
		t.Error("the new segment has the old one's lock")
	}
	if info := old2.info(); info.Status != shm.StatusRemoved || info.Attached != 2 {
		t.Errorf("info of the removed segment: %v, %d attached", info.Status, info.Attached)
	}
	// A process that is attached to both does not mistake one for the other.
	both := a.attach("k")
	if got := both.peek(0, 3); got != "new" {
		t.Errorf("attached to the segment that contains %q", got)
	}
	old1.detach()
	old2.detach()
	fresh.detach()
	if got := both.peek(0, 3); got != "new" {
		t.Errorf("after the removed segment was destroyed, the new one contains %q", got)
	}
	both.detach()
	st.wantFiles()
}

func TestSlotsOfDeadProcessesAreUsedAgain(t *testing.T) {
	st := newStore(t)
	a := st.start()
	a.create("k", 64, opts{Max: 4})
	for round := range 3 {
		b := st.start()
		for range 3 {
			b.attach("k")
		}
		_, err := b.tryAttach("k")
		wantError(t, err, shm.ErrNoSpace)
		b.kill()
		if n := a.stat("k").Attached; n != 1 {
			t.Errorf("round %d: %d attached, want 1", round, n)
		}
	}
}

func TestExecutedChildrenInheritNothing(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine := a.create("k", 64)
	mine.lock()
	child := a.do(request{Op: "spawn"}) // the child outlives its parent
	t.Cleanup(func() { endPID(child.N) })
	theirs := b.attach("k")
	a.kill()
	theirs.lock()
	if !theirs.abandoned() {
		t.Error("Abandoned is false after the owner's death: its child holds its locks")
	}
	wantPIDs(t, b.stat("k"), b)
	theirs.detach()
	st.wantFilesAfterSweep()
}

func TestManySegmentsAtOnce(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	for i := range 40 {
		a.create(fmt.Sprint("key ", i), 64+i)
	}
	for i := range 40 {
		if got := b.attach(fmt.Sprint("key ", i)).size(); got != 64+i {
			t.Errorf("key %d has size %d", i, got)
		}
	}
	a.kill()
	if n := len(b.list()); n != 40 {
		t.Errorf("%d listed, want 40", n)
	}
	b.kill()
	c := st.start()
	if n := len(c.sweep()); n != 40 {
		t.Errorf("%d swept, want 40", n)
	}
	st.wantFiles()
}

func TestStoreContainsOneFileForEachSegment(t *testing.T) {
	st := newStore(t)
	var all []*attachment
	for _, p := range st.startN(5) {
		s, _ := p.open("k", 64)
		all = append(all, s, p.attach("k"))
		st.wantFiles("k")
	}
	dying := st.start()
	dying.attach("k").lock()
	dying.kill()
	for _, s := range all {
		st.wantFiles("k")
		s.detach()
	}
	st.wantFiles()
}

func TestGrowIsSeenByEveryAttachment(t *testing.T) {
	const before, after = 100, 100_000
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, same, theirs := a.create("k", before), a.attach("k"), b.attach("k")
	reader := b.attach("k", opts{ReadOnly: true})
	mine.write(before-1, "x")
	mine.grow(after)
	theirs.write(after-1, "y")
	for name, s := range map[string]*attachment{
		"the one that has grown it": mine, "of the same process": same, "of another process": theirs, "read-only": reader,
		"a later one": st.start().attach("k"),
	} {
		if n := s.size(); n != after {
			t.Errorf("%s: size %d, want %d", name, n, after)
		}
		if got := s.read(before-1, 2); got != "x\x00" {
			t.Errorf("%s: around the old end: %q", name, got)
		}
		if got := s.peek(after-2, 2); got != "\x00y" {
			t.Errorf("%s: at the new end: %q", name, got)
		}
	}
	if size := a.stat("k").Size; size != after {
		t.Errorf("Stat: size %d, want %d", size, after)
	}
	theirs.grow(before) // it is larger already
	_, err := reader.try(request{Op: "grow", N: 2 * after})
	wantError(t, err, shm.ErrReadOnly)
	a.remove("k")
	_, err = mine.try(request{Op: "grow", N: 2 * after})
	wantError(t, err, shm.ErrNotExist)
	if n := theirs.size(); n != after {
		t.Errorf("size %d after a Grow that failed, want %d", n, after)
	}
}

func TestProcessesGrowAtOnce(t *testing.T) {
	st := newStore(t)
	procs := st.startN(4)
	procs[0].create("k", 10)
	var calls []*pending
	var all []*attachment
	for _, p := range procs {
		s := p.attach("k")
		all = append(all, s)
		for _, size := range []int{1000, 30_000, 2000, 70_000} {
			calls = append(calls, s.begin(request{Op: "grow", N: size}))
		}
	}
	for _, c := range calls {
		c.must()
	}
	for _, s := range all {
		if n := s.size(); n != 70_000 {
			t.Errorf("size %d, want 70000", n)
		}
	}
	all[0].poke(69_999, "x")
	if got := all[1].peek(69_999, 1); got != "x" {
		t.Errorf("the end contains %q", got)
	}
}
