//go:build qshmfault

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"qshm/shm"
)

// While a process is at work with a segment, somebody cuts its file short, at
// every single step of that. The process must not die of it, and have nothing
// left of the segment when it has detached; and the key can be used again.

// cutting is what the victim does, one call after the other, while the file of
// the key "k" is cut.
type cutting struct {
	name    string
	others  int    // attachments of somebody who is alive
	garbage bool   // "k" is what somebody has left that died
	calls   string // on "k", in order
	max     int    // MaxAttachments, for all who create
}

var cuttings = []cutting{
	{name: "create", calls: "create create"},
	{name: "create what is garbage", garbage: true, calls: "create"},
	{name: "create what others have", others: 1, calls: "create"},
	{name: "attach", others: 1, calls: "attach attach"},
	{name: "attach to garbage", garbage: true, calls: "attach"},
	{name: "attach beyond the first page", others: 221, max: 1000, calls: "attach attach"},
	{name: "open", calls: "open open"},
	{name: "open what is garbage", garbage: true, max: 1000, calls: "open"},
	{name: "look", others: 1, calls: "stat list sweep"},
	{name: "look at garbage", garbage: true, max: 1000, calls: "stat list sweep"},
	{name: "remove", others: 1, calls: "remove"},
	{name: "remove its own", calls: "create remove create"},
	{name: "remove garbage", garbage: true, calls: "remove"},
}

// sizes are what is left of the file: nothing; some of the slots; the first page of
// a header that is longer.
func (c cutting) sizes() []int {
	if c.max > 0 {
		return []int{0, 2048, 4096}
	}
	return []int{0, 2048}
}

func TestCutShortWithoutDeathAtEachStep(t *testing.T) {
	for _, c := range cuttings {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			trace := filepath.Join(t.TempDir(), "steps")
			c.play(t, newStore(t), -1, "QSHM_FAULT_TRACE="+trace)
			steps, err := os.ReadFile(trace)
			if err != nil {
				t.Fatal(err)
			}
			seen := map[string]int{}
			for _, step := range strings.Split(strings.TrimSpace(string(steps)), "\n") {
				seen[step]++
				at := fmt.Sprintf("%s:%d", step, seen[step])
				for _, size := range c.sizes() {
					t.Run(fmt.Sprintf("%s/to-%d", strings.ReplaceAll(at, " ", "-"), size), func(t *testing.T) {
						st := newStore(t)
						c.play(t, st, size, "QSHM_FAULT="+at, fmt.Sprintf("QSHM_FAULT_CUT=%d:%s", size, st.path("k")))
					})
				}
			}
		})
	}
}

// play has a victim make the calls, and looks what comes of it. size is what its
// environment has the file cut to; negative if it has not.
func (c cutting) play(t *testing.T, st *store, size int, env ...string) {
	o := opts{Max: c.max}
	if c.garbage {
		p := st.start()
		p.create("k", 64, o).lock()
		p.kill()
	}
	in := shm.Dir(st.dir)
	var others []*shm.Segment
	for range c.others {
		s, _, err := shm.Open("k", 64, in, shm.MaxAttachments(max(c.max, 10)))
		if err != nil {
			t.Fatal(err)
		}
		others = append(others, s)
		defer s.Close()
	}

	v := st.startAs(nil, env)
	for _, op := range strings.Fields(c.calls) {
		_, err := v.try(request{Op: op, Key: key("k"), N: 64, Opts: o})
		switch {
		case errors.Is(err, errEnded):
			t.Fatalf("%s is the end of the process:\n%s", op, &v.stderr)
		case err == nil, errors.Is(err, shm.ErrCorrupt):
		case errors.Is(err, shm.ErrExist) && op == "create":
		case errors.Is(err, shm.ErrNotExist) && (op == "attach" || op == "stat" || op == "remove"):
		default:
			t.Errorf("%s: %v", op, err)
		}
	}
	v.do(request{Op: "closeall"})
	wantNothingOf(t, st, v.pid)
	if size >= 0 { // what it has left undone would be in its way now
		v.create("another", 64).detach()
	}
	v.exit()

	for _, s := range others {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := shm.Create("k", 64, in)
	if errors.Is(err, shm.ErrCorrupt) && c.garbage && size > 0 { // and by hand, as the error says
		if err := os.Remove(st.path("k")); err != nil {
			t.Error(err)
		}
		s, err = shm.Create("k", 64, in)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := shm.Sweep(in); err != nil {
		t.Error(err)
	}
	st.wantFiles()
}

// wantNothingOf checks that a process has no file of the store open or mapped, on
// systems that tell.
func wantNothingOf(t *testing.T, st *store, pid int) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	links, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, st.dir) {
			t.Errorf("still open: %s", to)
		}
	}
	maps, _ := os.ReadFile(filepath.Join(proc, "maps"))
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, st.dir) {
			t.Errorf("still mapped: %s", line)
		}
	}
}
