package test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"qshm/lockfile"
	"qshm/shm"
)

// What calls cost, whatever the time they take: system calls, threads, and how often a
// waiting process wakes.

func init() {
	// creations creates and destroys a segment N times, under a key of its own.
	extra["creations"] = func(c *child, _ context.Context, r request, a *answer) error {
		return repeat(r.N, func() error {
			s, err := shm.Create(string(r.Key)+"2", 64)
			if err != nil {
				return err
			}
			return s.Detach()
		})
	}
	// waiters starts N goroutines, each of which waits until the version has moved.
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
	// cancelled waits for a change and for the lock N times; each wait is cancelled.
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
				return fmt.Errorf("Wait: %v, LockContext: %v, want %v", waiting, locking, context.Canceled)
			}
		}
		return nil
	}
	// goroutines returns when there are N goroutines, and time has passed for all to wait.
	extra["goroutines"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		for runtime.NumGoroutine() < r.N {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(100 * time.Millisecond)
		return nil
	}
}

// systemCalls counts the system calls of a process that makes one call, by their names.
func systemCalls(t *testing.T, st *store, prepare func(*proc) string, r request) map[string]int {
	t.Helper()
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed: system calls are not counted")
	}
	needNative(t)
	out := filepath.Join(t.TempDir(), "calls")
	p := st.startAs([]string{strace, "-f", "-qq", "-c", "-U", "calls,name", "-o", out}, nil)
	if prepare != nil {
		r.Handle = prepare(p)
	}
	p.do(r)
	p.do(request{Op: "closeall"})
	p.exit()
	file, err := os.Open(out)
	if err != nil {
		t.Skipf("strace does not work here: %v\n%s", err, &p.stderr)
	}
	defer file.Close()
	calls := map[string]int{}
	for lines := bufio.NewScanner(file); lines.Scan(); {
		if f := strings.Fields(lines.Text()); len(f) == 2 {
			if n, err := strconv.Atoi(f[0]); err == nil && f[1] != "total" {
				calls[f[1]] = n
			}
		}
	}
	if calls["openat"] == 0 {
		t.Skipf("strace does not count here: %v\n%s", calls, &p.stderr)
	}
	return calls
}

func sum(calls map[string]int) (n int) {
	for _, c := range calls {
		n += c
	}
	return n
}

func TestUncontendedLockMakesNoSystemCall(t *testing.T) {
	const n = 200000
	st := newStore(t)
	for _, op := range []string{"locks", "countupdates", "snapshots"} {
		calls := systemCalls(t, st, func(p *proc) string { return p.create("k", 64).handle }, request{Op: op, N: n})
		// The Go runtime makes some calls, which depend on the time and not on the lock.
		if total := sum(calls); total > n/50 {
			t.Errorf("%s: %d system calls for %d operations, want none but the runtime's: %v", op, total, n, calls)
		}
	}
}

// lifetimeCalls counts the system calls that attaching and detaching make, without those
// of the Go runtime.
func lifetimeCalls(calls map[string]int) (n int) {
	for _, name := range []string{"openat", "flock", "fcntl", "unlinkat", "unlink", "close", "pread64", "newfstatat", "fstat", "getdents64"} {
		n += calls[name]
	}
	return n
}

// The table in docs/performance.md lists the system calls of Attach and Detach.
func TestAttachMakesTheSystemCallsOfTheDocs(t *testing.T) {
	const rounds = 1000
	if runtime.GOARCH != "amd64" {
		t.Skip("some system calls have other names on " + runtime.GOARCH)
	}
	if slotLocks() != lockfile.RecordLocks {
		t.Skip("slot locks are sibling files")
	}
	text, err := os.ReadFile("../docs/performance.md")
	must(t, err)
	_, table, _ := strings.Cut(string(text), "\n| calls | why |\n|---|---|\n")
	table, _, _ = strings.Cut(table, "\n\n")
	want := map[string]int{}
	for row := range strings.Lines(table) {
		for name := range strings.SplitSeq(strings.TrimSpace(strings.Split(row, "|")[1]), ", ") {
			want[name]++
		}
	}
	if n := sum(want); !strings.Contains(string(text), fmt.Sprintf("are %d system calls", n)) {
		t.Errorf("the table has %d system calls, and the text names another number", n)
	}
	st := newStore(t)
	st.start().create("k", 64)
	got := systemCalls(t, st, nil, request{Op: "lifetimes", Key: key("k"), N: rounds})
	for name, n := range want {
		// The Go runtime makes some of them too, and the garbage collector is late with some.
		if name != "munmap" && (got[name] < n*rounds || got[name] >= n*rounds+rounds/2) {
			t.Errorf("%d calls of %s in %d rounds, want %d in each", got[name], name, rounds, n)
		}
	}
}

func TestAttachCostsTheSameWithManyAttached(t *testing.T) {
	const rounds = 200
	var counts []int
	for _, n := range []int{1, 200} {
		st := newStore(t)
		st.start().create("k", 64, opts{Max: 256})
		attachMany(st, "k", n-1)
		counts = append(counts, lifetimeCalls(systemCalls(t, st, nil, request{Op: "lifetimes", Key: key("k"), N: rounds})))
	}
	wantSameCost(t, counts, 0)
}

func TestAttachAndCreateCostTheSameWithManyKeys(t *testing.T) {
	const rounds = 200
	n := 3000
	if testing.Short() {
		n = 500
	}
	for op, some := range map[string]int{
		"lifetimes": 1,
		"creations": 64 * 12 / 16, // one Create in 16 looks at some other segments
	} {
		var counts []int
		for _, n := range []int{1, n} {
			st := newStore(t)
			st.start().create("k", 64)
			createMany(st, n-1)
			counts = append(counts, lifetimeCalls(systemCalls(t, st, nil, request{Op: op, Key: key("k"), N: rounds})))
		}
		t.Log(op)
		wantSameCost(t, counts, rounds*some)
	}
}

// wantSameCost checks that the second count exceeds the first by at most a tenth and some
// calls.
func wantSameCost(t *testing.T, counts []int, some int) {
	t.Helper()
	t.Logf("system calls: %v", counts)
	if few, many := counts[0], counts[1]; many > few+few/10+some {
		t.Errorf("%d system calls with few, and %d with many, want at most %d", few, many, few+few/10+some)
	}
}

// threads counts the threads of a process.
func (p *proc) threads() int {
	p.t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", p.pid))
	must(p.t, err)
	return len(tasks)
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
		t.Errorf("%d threads while %d goroutines wait, and %d before: want one more, and some of the runtime", after, n, before)
	}
	mine.write(0, "x")
	waiting.must()
}

// The end of one waiter's context wakes no other process.
func TestCancelledWaiterWakesNoOtherProcess(t *testing.T) {
	needNative(t)
	const cancels = 200
	st := newStore(t)
	owner, sleeper, canceller := st.start(), st.start(), st.start()
	held, sleeping, cancelled := owner.create("k", 64), sleeper.attach("k"), canceller.attach("k")
	held.lock()
	waiting := sleeping.begin(request{Op: "wait", Version: sleeping.version()})
	locking := sleeping.goLock()
	time.Sleep(3 * time.Second) // until the waiter asks less often whether the owner is alive
	before := sleeper.switches()
	cancelled.do(request{Op: "cancelled", N: cancels})
	// The sleeper wakes now and then by itself, and the runtime has threads of its own.
	if n := sleeper.switches() - before; n > cancels {
		t.Errorf("another process woke %d times during %d cancelled waits of each kind, want at most %d", n, cancels, cancels)
	}
	held.unlock()
	waiting.must()
	locking.must()
}

// The longer a process waits for the lock, the less often it wakes to ask whether the
// owner is alive.
func TestProcessThatWaitsForLongRarelyWakes(t *testing.T) {
	needNative(t)
	st := newStore(t)
	owner, waiter := st.start(), st.start()
	held, theirs := owner.create("k", 64), waiter.attach("k")
	held.lock()
	locking := theirs.goLock()
	time.Sleep(4 * time.Second)
	before := waiter.switches()
	time.Sleep(4 * time.Second)
	if n := waiter.switches() - before; n > 400 {
		t.Errorf("the waiter woke %d times in 4 seconds, want at most 400", n)
	}
	held.unlock()
	locking.must()
}

// ticks returns how much processor time the process has used, in hundredths of a second.
func (p *proc) ticks() int {
	p.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.pid))
	must(p.t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	user, err := strconv.Atoi(fields[11])
	must(p.t, err)
	system, err := strconv.Atoi(fields[12])
	must(p.t, err)
	return user + system
}

// A process that waits at a stream sleeps. It looks whether the others are alive, each
// time after a quarter of the time that it has waited: three times or so within the
// period. Each time, the Go runtime's monitor may look around up to seventy times before
// it sleeps again. A process that polled every 2 ms would switch 3000 times.
func TestWaitingAtAStreamTakesNoProcessorTime(t *testing.T) {
	needNative(t)
	const period, switches, ticks = 2 * time.Second, 600, 20
	st := newStore(t)
	other := st.start()
	waiters := map[string]*proc{}
	var waiting []*pending
	for name, wait := range map[string]func(p *proc, theirs end) *pending{
		"a reader": func(p *proc, theirs end) *pending {
			theirs.send("x")
			return p.stream("a reader", 4096).subscribe("").begin(request{Op: "stream next"})
		},
		"a member": func(p *proc, theirs end) *pending {
			theirs.send("x")
			return p.stream("a member", 4096).subscribe("group g").begin(request{Op: "stream next"})
		},
		"a writer": func(p *proc, theirs end) *pending {
			theirs.subscribe("")
			return p.stream("a writer", 4096).begin(request{Op: "stream sends", N: 1000})
		},
		"a writer, for a group": func(p *proc, theirs end) *pending {
			theirs.subscribe("group g")
			return p.stream("a writer, for a group", 4096).begin(request{Op: "stream sends", N: 1000})
		},
	} {
		waiters[name] = st.start()
		waiting = append(waiting, wait(waiters[name], other.stream(name, 4096)))
		st.awaitWatcher(name)
	}
	time.Sleep(period) // until they look rarely
	type cost struct{ switches, ticks int }
	before := map[string]cost{}
	for name, p := range waiters {
		before[name] = cost{p.switches(), p.ticks()}
	}
	time.Sleep(period)
	for name, p := range waiters {
		did := cost{p.switches() - before[name].switches, p.ticks() - before[name].ticks}
		t.Logf("%s: %+v", name, did)
		if did.switches > switches || did.ticks > ticks {
			t.Errorf("%s that waits: %d context switches, %d ticks of processor time", name, did.switches, did.ticks)
		}
	}
	for _, w := range waiting {
		select {
		case a := <-w.answer:
			t.Errorf("a call has ended: %+v", a)
		default:
		}
	}
}
