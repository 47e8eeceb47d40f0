package test

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
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
