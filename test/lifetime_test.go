package test

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"

	"qshm/shm"
)

// What a process finds after others have attached, detached and died.

func init() {
	// openatonce waits for the gate and then opens, so that many processes do so at once.
	extra["openatonce"] = func(c *child, _ context.Context, r request, a *answer) error {
		<-c.gate
		s, created, err := shm.Open(string(r.Key), r.N)
		if a.OK = created; err == nil {
			c.keep(s, a)
		}
		return err
	}
	// spawn starts a process that outlives this one: it does not inherit the pipe from the
	// test, so that it does not exit when the pipe is closed.
	extra["spawn"] = func(c *child, _ context.Context, r request, a *answer) error {
		line := append(strings.Fields(os.Getenv(envExec)), os.Args[0], "-test.run=^$")
		cmd := exec.Command(line[0], line[1:]...)
		cmd.Env = append(os.Environ(), envChild+"=orphan")
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		hello, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			return err
		}
		a.N, err = strconv.Atoi(strings.TrimSpace(hello))
		return err
	}
}

func TestProcessesShareTheMemory(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	mine := a.create("k", 64)
	theirs := b.attach("k")
	mine.poke(0, "hello")
	if got := theirs.peek(0, 5); got != "hello" {
		t.Errorf("the other process reads %q, want %q", got, "hello")
	}
	theirs.write(5, " there")
	if got := mine.read(0, 11); got != "hello there" {
		t.Errorf("the first process reads %q, want %q", got, "hello there")
	}
	if mine.size() != 64 || theirs.size() != 64 {
		t.Errorf("sizes %d and %d, want 64", mine.size(), theirs.size())
	}
}

func TestStatIsExactAfterAKill(t *testing.T) {
	st := newStore(t)
	a, b, c, d := st.start(), st.start(), st.start(), st.start()
	a.create("k", 64)
	b.attach("k")
	b.attach("k", opts{ReadOnly: true})
	c.attach("k")
	wantPIDs(t, d.stat("k"), a, b, b, c)
	b.kill()
	wantPIDs(t, d.stat("k"), a, c)
	wantPIDs(t, d.stat("k"), a, c) // again: Stat changes nothing
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
		t.Fatalf("List: %+v, want the segments one and two", list)
	}
	wantPIDs(t, list[0], a, b)
	wantPIDs(t, list[1], b)
	if list[0].Owner != nil || list[1].Owner == nil || list[1].Owner.PID != b.pid {
		t.Errorf("owners %v and %v, want none and process %d", list[0].Owner, list[1].Owner, b.pid)
	}
	b.kill()
	if info := a.stat("two"); info.Owner != nil || info.Status != shm.StatusDead {
		t.Errorf("after the owner's death: owner %v, status %v, want none, dead", info.Owner, info.Status)
	}
}

func TestLastDetachDestroys(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	one, two := a.create("k", 64), a.attach("k")
	three := b.attach("k")
	one.detach()
	three.detach()
	st.wantFiles("k")
	if n := a.stat("k").Attached; n != 1 {
		t.Errorf("%d attached before the last Detach, want 1", n)
	}
	two.detach()
	st.wantFiles() // no Sweep is needed
	_, err := b.tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
}

// The end of a process takes nothing away from the others, as it does in cpython 82300.
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
			a, b, c, user := st.start(), st.start(), st.start(), st.start()
			mine, used := a.create("k", 64), user.attach("k")
			mine.write(0, "kept")
			theirs := b.attach("k")
			end.of(a, mine)
			end.of(user, used) // and that of a process that only used the segment
			if got := theirs.read(0, 4); got != "kept" {
				t.Errorf("read %q, want %q", got, "kept")
			}
			third := c.attach("k")
			theirs.lock() // there is still one lock
			if third.tryLock() {
				t.Error("attachments from before and after the creator's end both hold the lock")
			}
			theirs.unlock()
			_, err := c.tryCreate("k", 64)
			wantError(t, err, shm.ErrExist)
		})
	}
}

// It does not matter which call is the first.
func TestFirstCallAfterAllProcessesDiedWorks(t *testing.T) {
	for _, first := range []struct {
		name  string
		check func(*testing.T, *proc)
	}{
		{"create", func(t *testing.T, p *proc) {
			if got := p.create("k", 32).read(0, 4); got != "\x00\x00\x00\x00" {
				t.Errorf("the new memory contains %q, want zeros", got)
			}
		}},
		{"open", func(t *testing.T, p *proc) {
			s, created := p.open("k", 32)
			if !created || s.size() != 32 {
				t.Errorf("Open: created %v, size %d, want true, 32", created, s.size())
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
				t.Errorf("Sweep reports %+v, want the segment k", swept)
			}
			p.st.wantFiles()
		}},
		{"create of another key", func(t *testing.T, p *proc) {
			p.create("other", 32).detach()
			p.st.wantFiles("k") // the next process with that key must learn that its lock was abandoned
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
	calls := beginAtOnce(procs, func(int) request { return request{Op: "openatonce", Key: key("k"), N: 64} })
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
		t.Errorf("version %d, want %d: not all processes have the same segment", info.Version, 20*n)
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
				t.Errorf("Stat: %+v, want 3 attached and the owner %d", info, a.pid)
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
				t.Error("the lock has no owner after Create, Attach, Detach, Open and Sweep")
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
		t.Errorf("the removed segment contains %q, want %q", got, "old")
	}
	old1.lock()
	if old2.tryLock() {
		t.Error("two attachments to the removed segment hold its lock")
	}
	if !fresh.tryLock() {
		t.Error("the lock of the new segment is taken when that of the removed one is")
	}
	if info := old2.info(); info.Status != shm.StatusRemoved || info.Attached != 2 {
		t.Errorf("the removed segment: status %v, %d attached, want removed, 2", info.Status, info.Attached)
	}
	// A process that is attached to both keeps them apart.
	both := a.attach("k")
	if got := both.peek(0, 3); got != "new" {
		t.Errorf("Attach finds the segment that contains %q, want %q", got, "new")
	}
	old1.detach()
	old2.detach()
	fresh.detach()
	if got := both.peek(0, 3); got != "new" {
		t.Errorf("the new segment contains %q after the removed one was destroyed, want %q", got, "new")
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
	child := a.do(request{Op: "spawn"}).N // outlives its parent
	t.Cleanup(func() {
		if p, err := os.FindProcess(child); err == nil {
			p.Kill()
		}
	})
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
		t.Errorf("List reports %d segments, want 40", n)
	}
	b.kill()
	c := st.start()
	if n := len(c.sweep()); n != 40 {
		t.Errorf("Sweep reports %d segments, want 40", n)
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

// runOrphan is what a process that spawn has started does.
func runOrphan() {
	fmt.Println(os.Getpid())
	select {}
}

// Create destroys some garbage of other keys, but none whose lock was abandoned: the next
// process with that key must learn it.
func TestCreateKeepsGarbageOfOtherKeysWithAbandonedLocks(t *testing.T) {
	st := newStore(t)
	dying := st.start()
	dying.create("not abandoned", 8)
	abandoned := dying.create("abandoned", 8)
	abandoned.lock()
	dying.kill()
	other := st.start()
	s := other.create("other", 8) // the first Create of a process
	st.wantFiles("abandoned", "other")
	next := st.start().create("abandoned", 8)
	a := next.do(request{Op: "replaced"})
	if !a.OK || !a.Infos[0].Abandoned {
		t.Errorf("Replaced: %v, %+v; want true, with an abandoned lock", a.OK, a.Infos)
	}
	next.detach()
	s.detach()
	st.wantFiles()
}

func TestReplacedSaysHowTheLastProcessEnded(t *testing.T) {
	st := newStore(t)
	next := st.start()
	for _, end := range []struct {
		name                string
		lock                bool
		replaced, abandoned bool
	}{
		{"detached", false, false, false},
		{"killed", false, true, false},
		{"killed while it held the lock", true, true, true},
	} {
		p := st.start()
		s := p.create("k", 64)
		if end.lock {
			s.lock()
		}
		if end.replaced {
			p.kill()
		} else {
			s.detach()
		}
		s, created := next.open("k", 64)
		if !created {
			t.Fatalf("%s: Open has not created the segment", end.name)
		}
		a := s.do(request{Op: "replaced"})
		if a.OK != end.replaced || a.Infos[0].Abandoned != end.abandoned {
			t.Errorf("%s: replaced %v, abandoned %v, want %v, %v", end.name, a.OK, a.Infos[0].Abandoned, end.replaced, end.abandoned)
		}
		s.detach()
	}
}

// A slot whose lock no process holds is dead, even if the process number in it is that of
// a live process: in another container, the number may be that of any process.
func TestLivenessDoesNotDependOnProcessNumbers(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	a.create("k", 64)
	b.attach("k")
	b.kill()
	file, err := os.OpenFile(st.path("k"), os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	const slots = 576
	var slot [8]byte
	_, err = file.ReadAt(slot[:], slots+8)
	must(t, err)
	word := binary.NativeEndian.Uint64(slot[:])
	if word == 0 {
		t.Fatal("the slot of the dead process is empty, want its process number")
	}
	binary.NativeEndian.PutUint64(slot[:], word&^0xffffffff|uint64(os.Getpid()))
	_, err = file.WriteAt(slot[:], slots+8)
	must(t, err)
	if n := a.stat("k").Attached; n != 1 {
		t.Errorf("%d attached, want 1", n)
	}
}
