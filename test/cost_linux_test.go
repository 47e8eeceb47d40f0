package test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// traced counts the system calls of a process that makes one call, by name.
func traced(t *testing.T, st *store, prepare func(*proc) string, r request) map[string]int {
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
		calls := traced(t, st, func(p *proc) string { return p.create("k", 64).handle }, request{Op: op, N: n})
		// The Go runtime makes some calls, which depend on the time and not on the lock.
		if total := sum(calls); total > n/50 {
			t.Errorf("%s: %d system calls for %d operations: %v", op, total, n, calls)
		}
	}
}

// lifetimeCalls counts the system calls that attaching and detaching consist of, and
// not those of the Go runtime.
func lifetimeCalls(calls map[string]int) (n int) {
	for _, name := range []string{"openat", "flock", "fcntl", "unlinkat", "unlink", "close", "pread64", "newfstatat", "fstat", "getdents64"} {
		n += calls[name]
	}
	return n
}

func TestAttachCostsTheSameWithManyAttached(t *testing.T) {
	const rounds = 200
	var counts []int
	for _, n := range []int{1, 200} {
		st := newStore(t)
		st.start().create("k", 64, opts{Max: 256})
		crowd(st, "k", n-1)
		counts = append(counts, lifetimeCalls(traced(t, st, nil, request{Op: "lifetimes", Key: key("k"), N: rounds})))
	}
	wantSameCost(t, counts, 0)
}

func TestCostsTheSameWithManyKeys(t *testing.T) {
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
			litter(st, n-1)
			counts = append(counts, lifetimeCalls(traced(t, st, nil, request{Op: op, Key: key("k"), N: rounds})))
		}
		t.Log(op)
		wantSameCost(t, counts, rounds*some)
	}
}

// wantSameCost checks that the second count exceeds the first by no more than a tenth
// and some calls.
func wantSameCost(t *testing.T, counts []int, some int) {
	t.Helper()
	t.Logf("system calls: %v", counts)
	if few, many := counts[0], counts[1]; many > few+few/10+some {
		t.Errorf("%d system calls with few, and %d with many", few, many)
	}
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
