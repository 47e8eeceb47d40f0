package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qshm/lockfile"
	"qshm/shm"
)

// What an adversary or an administrator can do to processes and stores: no process takes
// the lock from a live owner, no dead process counts as alive, and every wait ends.

func init() {
	extra["chroot"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		return errors.Join(syscall.Chroot(string(r.Data)), os.Chdir("/"))
	}
	extra["setuid"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		return syscall.Setuid(r.N)
	}
	// holdfilelock takes the file lock of a segment as a user who can only read the file can.
	extra["holdfilelock"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		fd, err := syscall.Open(string(r.Data), syscall.O_RDONLY, 0)
		if err == nil {
			err = syscall.Flock(fd, syscall.LOCK_EX)
		}
		return err // and keeps the descriptor
	}
	// readlockslots puts a shared record lock on all slots but the second, for which
	// reading suffices.
	extra["readlockslots"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		fd, err := syscall.Open(string(r.Data), syscall.O_RDONLY, 0)
		if err != nil {
			return err
		}
		for _, slots := range []unix.Flock_t{{Start: 1 << 40, Len: 1}, {Start: 1<<40 + 2, Len: 1 << 20}} {
			slots.Type = unix.F_RDLCK
			err = errors.Join(err, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &slots))
		}
		return err
	}
	extra["patience"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		lockfile.Patience = r.Timeout
		return nil
	}
	// waiters starts n goroutines that Wait, each until the version has moved.
	extra["waiters"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		version, ended := s.Version(), make(chan error, r.N)
		for range r.N {
			go func() {
				_, err := s.Wait(ctx, version)
				ended <- err
			}()
		}
		for range r.N {
			if err := <-ended; err != nil {
				return err
			}
		}
		return nil
	}
	// cancelled waits n times, and each time its context ends.
	extra["cancelled"] = func(c *child, ctx context.Context, r request, _ *answer) error {
		s := c.segment(r.Handle)
		for range r.N {
			ctx, cancel := context.WithCancel(ctx)
			time.AfterFunc(time.Millisecond, cancel)
			_, waiting := s.Wait(ctx, s.Version())
			ctx, cancel = context.WithCancel(context.Background())
			time.AfterFunc(time.Millisecond, cancel)
			locking := s.LockContext(ctx)
			if !errors.Is(waiting, context.Canceled) || !errors.Is(locking, context.Canceled) {
				return fmt.Errorf("%v, %v", waiting, locking)
			}
		}
		return nil
	}
	// goroutines waits until there are n goroutines, all of which wait.
	extra["goroutines"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		for runtime.NumGoroutine() < r.N {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		return nil
	}
	extra["add"] = func(c *child, _ context.Context, r request, _ *answer) error {
		return c.segment(r.Handle).Update(func(data []byte) error { data[0]++; return nil })
	}
	extra["updatewhen"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		return s.UpdateWhen(ctx,
			func(data []byte) bool { a.N++; return data[0] > 0 },
			func(data []byte) error { data[0]--; return nil })
	}
}

// needRecordLocks skips a test of something that sibling files cannot do: they need a
// path to the store, and the permission to open and remove them.
func needRecordLocks(t *testing.T) {
	t.Helper()
	if slotLocks() == lockfile.SiblingFiles {
		t.Skip("slot locks are sibling files here")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may do this")
	}
	if os.Getenv(envExec) != "" {
		t.Skip("an emulator does not do this")
	}
}

// file is the path of a key's file, for a request.
func (st *store) file(key string) []byte { return []byte(st.path(key)) }

func TestProcessInAChrootSeesALiveOwner(t *testing.T) {
	needRoot(t)
	st := newStore(t)
	owner, prisoner := st.start(), st.start()
	mine, theirs := owner.create("k", 64), prisoner.attach("k")
	mine.lock()
	prisoner.do(request{Op: "chroot", Data: []byte(t.TempDir())})
	if err := theirs.lockWithin(200 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a process in a chroot, while the lock is held: %v", err)
	}
	if theirs.tryLock() {
		t.Error("a process in a chroot takes the lock of a live process")
	}
	theirs.detach()
	st.wantFiles("k")
	mine.unlock()
	wantPIDs(t, owner.stat("k"), owner)
	mine.detach()
	st.wantFiles()
}

func TestProcessInAChrootSeesADeadOwner(t *testing.T) {
	needRoot(t)
	needRecordLocks(t)
	st := newStore(t)
	owner, prisoner := st.start(), st.start()
	mine, theirs := owner.create("k", 64), prisoner.attach("k")
	mine.lock()
	prisoner.do(request{Op: "chroot", Data: []byte(t.TempDir())})
	locking := theirs.goLock()
	owner.kill()
	locking.must()
	if !theirs.abandoned() {
		t.Error("the lock of a dead process is not abandoned")
	}
	theirs.unlock()
	theirs.detach() // it cannot remove the file, which is garbage now
	if _, err := st.start().tryAttach("k"); !errors.Is(err, shm.ErrNotExist) {
		t.Errorf("attach to the garbage: %v", err)
	}
	st.wantFiles()
}

func TestOwnerKeepsTheLockInAnEmptiedStore(t *testing.T) {
	st := newStore(t)
	owner, other := st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	must(t, os.Remove(st.path("k")))
	if theirs.tryLock() {
		t.Error("the lock of a live process is taken")
	}
	if err := theirs.lockWithin(100 * time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("lock: %v", err)
	}
	fresh := other.create("k", 64)
	locking := theirs.goLock()
	owner.kill()
	locking.must()
	if !theirs.abandoned() {
		t.Error("the lock of a dead process is not abandoned")
	}
	theirs.unlock()
	theirs.detach()
	wantPIDs(t, other.stat("k"), other) // the successor is not concerned
	fresh.detach()
}

func TestDeadProcessIsFoundAfterSetuid(t *testing.T) {
	needRoot(t)
	needRecordLocks(t)
	st := newStore(t)
	owner, other := st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	other.do(request{Op: "setuid", N: 65534})
	if theirs.tryLock() {
		t.Error("after setuid, the lock of a live process is taken")
	}
	locking := theirs.goLock()
	owner.kill()
	locking.must()
	theirs.unlock()
	if got := theirs.info().Attached; got != 1 {
		t.Errorf("after setuid, %d attached, want 1", got)
	}
	if _, err := theirs.try(request{Op: "detach"}); !errors.Is(err, shm.ErrPermission) {
		t.Errorf("the last detach, which may not remove the file: %v", err)
	}
	if _, err := st.start().tryAttach("k"); !errors.Is(err, shm.ErrNotExist) {
		t.Errorf("attach to the garbage: %v", err)
	}
}

// A user who may read a segment's file can hold its file lock: calls that need it end
// with an error that says so.
func TestWaitForAHeldFileLockIsBounded(t *testing.T) {
	st := newStore(t)
	owner, stranger, newcomer := st.start(), st.start(), st.start()
	mine := owner.create("k", 64)
	stranger.do(request{Op: "holdfilelock", Data: st.file("k")})
	newcomer.do(request{Op: "patience", Timeout: 300 * time.Millisecond})
	owner.do(request{Op: "patience", Timeout: 300 * time.Millisecond})

	_, err := newcomer.tryAttach("k")
	if !errors.Is(err, shm.ErrBusy) || !strings.Contains(fmt.Sprint(err), st.path("k")) || !strings.Contains(fmt.Sprint(err), "held the file lock") {
		t.Errorf("attach: %v", err)
	}
	_, err = newcomer.tryAttach("k", opts{Timeout: 50 * time.Millisecond})
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("attach with a context: %v", err)
	}
	if err := newcomer.tryRemove("k"); !errors.Is(err, shm.ErrBusy) {
		t.Errorf("remove: %v", err)
	}
	if _, err := mine.try(request{Op: "grow", N: 100}); !errors.Is(err, shm.ErrBusy) {
		t.Errorf("grow: %v", err)
	}
	mine.lock() // the segment's lock has nothing to do with it
	mine.unlock()
	mine.detach() // gives up, and leaves garbage
	stranger.kill()
	newcomer.create("k", 64).detach()
}

// A user who may read a segment's file can put shared locks on the slots. That keeps
// newcomers out. No process counts as alive because of them, and a take-over works.
func TestSharedLocksKeepNoSlotAlive(t *testing.T) {
	if slotLocks() == lockfile.SiblingFiles {
		t.Skip("the test is about record locks")
	}
	st := newStore(t)
	owner, other, stranger := st.start(), st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	owner.kill()
	stranger.do(request{Op: "readlockslots", Data: st.file("k")})
	if got := theirs.info().Attached; got != 1 {
		t.Errorf("%d attached, want 1", got)
	}
	theirs.goLock().must()
	if !theirs.abandoned() {
		t.Error("not abandoned")
	}
	theirs.unlock()
	_, err := st.start().tryAttach("k")
	if !errors.Is(err, shm.ErrNoSpace) {
		t.Errorf("attach: %v", err)
	}
	other.kill()
	if info := st.start().stat("k"); info.Status != shm.StatusDead {
		t.Errorf("after the death of all: %v", info.Status)
	}
}

// In a store that all may write, but only the owner of a file may remove it, garbage of
// another user is no obstacle where its file may be written, and named where not.
func TestGarbageOfAnotherUserInAStickyStore(t *testing.T) {
	needRoot(t)
	needRecordLocks(t)
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprint("writable=", shared), func(t *testing.T) {
			st := newStoreIn(t, filepath.Join(sharedTemp(t), "store"))
			must(t, os.Mkdir(st.dir, 0o777))
			must(t, os.Chmod(st.dir, 0o777|os.ModeSticky))
			must(t, os.Chmod(filepath.Dir(st.dir), 0o755))
			perm := os.FileMode(0o600)
			if shared {
				perm = 0o666
			}
			owner := st.start()
			s := owner.create("k", 1<<20, opts{Perm: perm})
			s.poke(0, "old")
			owner.kill()
			must(t, os.Chown(st.path("k"), 65533, 65533))

			user := st.startAs([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, []string{envSelf + "=" + publicSelf(t)})
			s, err := user.tryCreate("k", 100)
			if !shared {
				if !errors.Is(err, shm.ErrPermission) || !strings.Contains(err.Error(), "65533") || !strings.Contains(err.Error(), st.path("k")) {
					t.Errorf("create: %v", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got := s.peek(0, 3); got != "\x00\x00\x00" {
				t.Errorf("the new segment begins with %q", got)
			}
			wantPIDs(t, user.stat("k"), user)
			s.detach()
			if info, err := os.Stat(st.path("k")); err == nil && info.Size() > 0 {
				t.Errorf("after the last detach, %d bytes are left", info.Size())
			}
			user.create("k", 100).detach()
		})
	}
}

// publicSelf copies the test binary to where every user may execute it.
func publicSelf(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "qshm-public-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	binary, err := os.ReadFile(self(t))
	must(t, err)
	path := filepath.Join(dir, "test")
	must(t, os.WriteFile(path, binary, 0o755))
	return path
}

// threads counts the threads of a process; counter reads a number of its status.
func (p *proc) threads() int { return p.counter("Threads") }

func (p *proc) counter(name string) int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	must(p.t, err)
	_, rest, _ := strings.Cut(string(text), name+":")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	must(p.t, err)
	return n
}

// switches counts how often the threads of the process have gone to sleep.
func (p *proc) switches() (n int) {
	p.t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.pid))
	must(p.t, err)
	for _, file := range files {
		text, _ := os.ReadFile(file)
		_, rest, _ := strings.Cut(string(text), "\nvoluntary_ctxt_switches:")
		if fields := strings.Fields(rest); len(fields) > 0 {
			k, _ := strconv.Atoi(fields[0])
			n += k
		}
	}
	return n
}

func TestThousandsOfGoroutinesWaitOnOneThread(t *testing.T) {
	needNative(t)
	const n = 20000
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, theirs := a.create("k", 64), b.attach("k")
	before := b.threads()
	waiting := theirs.begin(request{Op: "waiters", N: n})
	b.do(request{Op: "goroutines", N: n})
	if after := b.threads(); after > before+8 {
		t.Errorf("%d threads, %d before %d goroutines wait", after, before, n)
	}
	mine.write(0, "x")
	waiting.must()
}

// The end of one waiter's context wakes no other process.
func TestCancelledWaiterWakesNoOtherProcess(t *testing.T) {
	needNative(t)
	const cancels = 200
	st := newStore(t)
	holder, sleeper, canceller := st.start(), st.start(), st.start()
	held, quiet, busy := holder.create("k", 64), sleeper.attach("k"), canceller.attach("k")
	held.lock()
	waiting := quiet.begin(request{Op: "wait", Version: quiet.version()})
	locking := quiet.goLock()
	time.Sleep(3 * time.Second) // until it looks rarely whether the owner lives
	before := sleeper.switches()
	busy.do(request{Op: "cancelled", N: cancels})
	// The sleeper looks now and then by itself, and the runtime has threads of its own.
	if n := sleeper.switches() - before; n > cancels {
		t.Errorf("%d sleeps of another process during %d cancellations of each kind", n, cancels)
	}
	held.unlock()
	waiting.must()
	locking.must()
}

// A process that waits for a lock held for long hardly ever wakes.
func TestWaitingForALongTimeSleeps(t *testing.T) {
	needNative(t)
	st := newStore(t)
	holder, waiter := st.start(), st.start()
	held, theirs := holder.create("k", 64), waiter.attach("k")
	held.lock()
	locking := theirs.goLock()
	time.Sleep(4 * time.Second)
	before := waiter.switches()
	time.Sleep(4 * time.Second)
	if n := waiter.switches() - before; n > 400 {
		t.Errorf("a waiter slept %d times in 4 seconds", n)
	}
	held.unlock()
	locking.must()
}

// Signals interrupt sleeps; a take-over is looked for all the same.
func TestSignalsDoNotDelayATakeOver(t *testing.T) {
	needNative(t)
	st := newStore(t)
	holder, waiter := st.start(), st.start()
	held, theirs := holder.create("k", 64), waiter.attach("k")
	held.lock()
	locking := theirs.goLock()
	stop := make(chan struct{})
	stopped := make(chan struct{})
	go func() { // more often than any sleep lasts
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", waiter.pid))
				for _, thread := range threads {
					if tid, err := strconv.Atoi(thread.Name()); err == nil {
						unix.Tgkill(waiter.pid, tid, unix.SIGURG)
					}
				}
			}
		}
	}()
	holder.kill()
	locking.must()
	close(stop)
	<-stopped
}

// A store that is seen under two paths is one store.
func TestOneStoreUnderTwoPaths(t *testing.T) {
	st := newStore(t)
	alias := filepath.Join(t.TempDir(), "alias")
	must(t, os.Symlink(filepath.Dir(st.dir), alias))
	other := filepath.Join(alias, filepath.Base(st.dir))
	a, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	b, err := shm.Attach("k", shm.Dir(other))
	must(t, err)
	must(t, a.Lock())
	if ok, _ := b.TryLock(); ok {
		t.Error("both have the lock")
	}
	shared := 0 // guarded by the lock: the race detector must know
	done := make(chan error)
	go func() {
		err := b.Lock()
		shared++
		done <- errors.Join(err, b.Unlock())
	}()
	shared++
	must(t, a.Unlock())
	must(t, <-done)
	must(t, a.Detach())
	st.wantFiles("k")
	must(t, b.Detach())
}

// A memory cgroup's limit is an error of Create, and not the end of the process.
func TestCgroupLimitIsNoSpace(t *testing.T) {
	needRoot(t)
	group := memoryCgroup(t, 64<<20)
	st := newStore(t)
	p := st.start()
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0))
	_, err := p.tryCreate("k", 1<<30)
	if !errors.Is(err, shm.ErrNoSpace) {
		t.Errorf("create beyond the limit: %v", err)
	}
	s := p.create("k", 8<<20)
	if _, err := s.try(request{Op: "grow", N: 1 << 30}); !errors.Is(err, shm.ErrNoSpace) {
		t.Errorf("grow beyond the limit: %v", err)
	}
	s.write(8<<20-1, "x")
	s.detach()
}

// memoryCgroup makes a cgroup with a memory limit.
func memoryCgroup(t *testing.T, limit int) string {
	t.Helper()
	for _, hierarchy := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(hierarchy.root, ownMemoryCgroup(), fmt.Sprint("qshm-test-", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, hierarchy.limit), []byte(strconv.Itoa(limit)), 0) == nil {
			return dir
		}
	}
	t.Skip("no memory cgroup can be made here")
	return ""
}

// ownMemoryCgroup is the group that this process is in.
func ownMemoryCgroup() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(strings.TrimSpace(line), ":memory:"); ok {
			return rest
		}
	}
	return ""
}

func TestNextInstanceLearnsHowTheLastOneEnded(t *testing.T) {
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
			t.Fatalf("%s: not created", end.name)
		}
		a := s.do(request{Op: "replaced"})
		if a.OK != end.replaced || a.Infos[0].Abandoned != end.abandoned {
			t.Errorf("%s: replaced %v, abandoned %v", end.name, a.OK, a.Infos[0].Abandoned)
		}
		s.detach()
	}
}

// Workers that wait for a condition do not wake each other, and each change wakes them.
func TestWorkersThatWaitDoNotWakeEachOther(t *testing.T) {
	st := newStore(t)
	master := st.start()
	queue := master.create("k", 64)
	var waiting []*pending
	for _, p := range st.startN(3) {
		waiting = append(waiting, p.attach("k").begin(request{Op: "updatewhen"}))
	}
	time.Sleep(300 * time.Millisecond)
	version := queue.version()
	if version != 0 {
		t.Errorf("looking has moved the version to %d", version)
	}
	looks := 0
	for range waiting {
		queue.do(request{Op: "add"})
	}
	for _, w := range waiting {
		looks += w.must().N
	}
	// At first, and once for each of the six changes at most, each of them.
	if looks > 3*(1+6) {
		t.Errorf("three workers looked %d times", looks)
	}
}

func TestGrowThatFindsNoSpaceChangesNothing(t *testing.T) {
	dir := mountStore(t, "size=1m")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	a, b := st.start(), st.start()
	s, other := a.create("k", 4096), b.attach("k")
	s.write(0, "kept")
	if _, err := s.try(request{Op: "grow", N: 2 << 20}); !errors.Is(err, shm.ErrNoSpace) {
		t.Errorf("grow: %v", err)
	}
	if s.size() != 4096 || other.size() != 4096 || other.read(0, 4) != "kept" {
		t.Errorf("sizes %d and %d, want 4096", s.size(), other.size())
	}
	s.do(request{Op: "grow", N: 512 << 10}) // there is room for that
	if other.size() != 512<<10 {
		t.Errorf("size %d, want %d", other.size(), 512<<10)
	}
}
