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

// Another program truncates the file of a segment while a process, the victim, calls
// the library: at each step, one after the other. The victim neither dies nor keeps
// anything of the segment after it has detached, and the key can be used again.

// A truncation is a sequence of calls that the victim makes on the key "k", while its file
// is truncated.
type truncation struct {
	name    string
	others  int    // attachments of another process
	garbage bool   // "k" is a segment whose only process has died
	calls   string // in order
	max     int    // MaxAttachments of every segment
}

var truncations = []truncation{
	{name: "create", calls: "create create"},
	{name: "create over garbage", garbage: true, calls: "create"},
	{name: "create what exists", others: 1, calls: "create"},
	{name: "create with Init", calls: "init"},
	{name: "attach", others: 1, calls: "attach attach"},
	{name: "attach to garbage", garbage: true, calls: "attach"},
	{name: "attach beyond the first page", others: 500, max: 1000, calls: "attach attach"},
	{name: "open", calls: "open open"},
	{name: "open over garbage", garbage: true, max: 1000, calls: "open"},
	{name: "grow", others: 1, calls: "attach grow grow"},
	{name: "grow its own", calls: "create grow"},
	{name: "look", others: 1, calls: "stat list sweep"},
	{name: "look at garbage", garbage: true, max: 1000, calls: "stat list sweep"},
	{name: "remove", others: 1, calls: "remove"},
	{name: "remove its own", calls: "create remove create"},
	{name: "remove garbage", garbage: true, calls: "remove"},
}

// sizes returns the sizes that the file is truncated to: nothing; a part of the slots; the
// first page of a longer header; all but a part of what Grow has added.
func (c truncation) sizes() []int {
	sizes := []int{0, 2048}
	if c.max > 0 {
		sizes = append(sizes, 4096)
	}
	if strings.Contains(c.calls, "grow") {
		sizes = append(sizes, 4096+growStep)
	}
	return sizes
}

// growStep is how many bytes each Grow adds.
const growStep = 10_000

func TestTruncationWithoutDeathAtEachStep(t *testing.T) {
	for _, c := range truncations {
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
					t.Run(fmt.Sprintf("%s/to-%d", at, size), func(t *testing.T) {
						st := newStore(t)
						c.play(t, st, size, "QSHM_FAULT="+at, fmt.Sprintf("QSHM_FAULT_CUT=%d:%s", size, st.path("k")))
					})
				}
			}
		})
	}
}

// play makes the victim's calls, and checks what they leave. size is the size that the file
// is truncated to, or negative; env says at which step.
func (c truncation) play(t *testing.T, st *store, size int, env ...string) {
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
	handle, grown := "", 64
	for _, op := range strings.Fields(c.calls) {
		r := request{Op: op, Key: key("k"), N: 64, Opts: o}
		switch op {
		case "init":
			r.Op, r.Opts.Init = "create", "initialised"
		case "grow":
			if handle == "" {
				continue // the victim could not attach
			}
			grown += growStep
			r.Handle, r.N = handle, grown
		}
		a, err := v.try(r)
		if a.Handle != "" {
			handle = a.Handle
		}
		switch {
		case errors.Is(err, errEnded):
			t.Fatalf("the victim has died in %s:\n%s", op, &v.stderr)
		case err == nil, errors.Is(err, shm.ErrCorrupt):
		case errors.Is(err, shm.ErrExist) && op == "create":
		case errors.Is(err, shm.ErrNotExist) && (op == "attach" || op == "stat" || op == "remove"):
		default:
			t.Errorf("the victim's %s: %v, want success or %v", op, err, shm.ErrCorrupt)
		}
	}
	v.do(request{Op: "closeall"})
	wantNothingOf(t, st, v.pid)
	if size >= 0 { // the victim can use other keys
		v.create("another", 64).detach()
	}
	v.exit()

	for _, s := range others {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	s, err := shm.Create("k", 64, in)
	if errors.Is(err, shm.ErrCorrupt) && c.garbage && size > 0 { // remove the file, as the error says
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
// systems that list both.
func wantNothingOf(t *testing.T, st *store, pid int) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	links, _ := filepath.Glob(filepath.Join(proc, "fd", "*"))
	for _, link := range links {
		if to, err := os.Readlink(link); err == nil && strings.HasPrefix(to, st.dir) {
			t.Errorf("the victim has %s open after Close", to)
		}
	}
	maps, _ := os.ReadFile(filepath.Join(proc, "maps"))
	for line := range strings.Lines(string(maps)) {
		if strings.Contains(line, st.dir) {
			t.Errorf("the victim has mapped after Close: %s", line)
		}
	}
}
