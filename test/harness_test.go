package test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
	"qshm/shm"
)

// Starting the processes of a test, telling them what to call, and ending them. The calls
// are in harness_calls_test.go, the side of the processes is in harness_child_test.go.

const (
	envChild = "QSHM_TEST_CHILD"
	envExec  = "QSHM_TEST_EXEC"
	envEmu   = "QSHM_TEST_EMULATOR" // set if the kernel starts the processes with an emulator
	envSelf  = "QSHM_TEST_SELF"     // a copy of the test binary that another user can execute
)

// patience bounds every call that must end. No test depends on its length: a call that
// takes longer hangs, and its process prints its stacks.
const patience = 60 * time.Second

func TestMain(m *testing.M) {
	lockfile.Patience = patience // an emulator with a hundred processes is slow
	switch os.Getenv(envChild) {
	case "":
	case "orphan":
		runOrphan()
	default:
		runChild()
	}
	os.Exit(m.Run())
}

// A store is a directory of a test's own, and the processes that use it.
type store struct {
	t   testing.TB
	dir string
}

// newStore makes a store that must be empty again when the test ends.
func newStore(t testing.TB) *store {
	t.Helper()
	return newStoreIn(t, sharedTemp(t))
}

func newStoreIn(t testing.TB, dir string) *store {
	t.Helper()
	st := &store{t, dir}
	// Cleanups run last in, first out: the processes of the test have ended by then.
	t.Cleanup(func() {
		if t.Failed() {
			return
		}
		if _, err := shm.Sweep(shm.Dir(dir)); err != nil {
			t.Errorf("sweep at the end of the test: %v", err)
		}
		st.wantFiles()
	})
	return st
}

// sharedTemp makes a directory in memory if the system has /dev/shm, where stores are by
// default.
func sharedTemp(t testing.TB) string {
	t.Helper()
	if info, err := os.Stat("/dev/shm"); err != nil || !info.IsDir() {
		return t.TempDir()
	}
	dir, err := os.MkdirTemp("/dev/shm", "qshm-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// path returns the path of the segment file of a key.
func (st *store) path(key string) string { return filepath.Join(st.dir, keymap.Name(key)) }

func (st *store) files() []string {
	st.t.Helper()
	entries, err := os.ReadDir(st.dir)
	if err != nil {
		st.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// wantFiles checks that the store contains one file for each of the keys and nothing
// else. Where slot locks are sibling files, the segments may have such files too.
func (st *store) wantFiles(keys ...string) {
	st.t.Helper()
	var want []string
	for _, k := range keys {
		want = append(want, keymap.Name(k))
	}
	slices.Sort(want)
	got := slices.DeleteFunc(st.files(), func(name string) bool {
		segment, _, isSibling := strings.Cut(name, keymap.Suffix+".")
		return isSibling && slotLocks() == lockfile.SiblingFiles && slices.Contains(want, segment+keymap.Suffix)
	})
	if !slices.Equal(got, want) {
		st.t.Errorf("the store contains %q, want %q", got, want)
	}
}

// slotLocks returns the kind of slot locks that segments have on this system, and
// with the build tags of the test.
var slotLocks = sync.OnceValue(func() lockfile.Kind {
	file, err := os.CreateTemp("", "qshm-test-")
	if err != nil {
		panic(err)
	}
	defer os.Remove(file.Name())
	defer file.Close()
	return lockfile.KindFor(file)
})

// A proc is a process that a test has started.
type proc struct {
	t   testing.TB
	st  *store
	cmd *exec.Cmd
	pid int // as the process itself sees it; if a wrapper started it, not that of cmd

	mu      sync.Mutex
	in      io.WriteCloser
	last    int
	waiting map[int]*pending
	over    error // why no more answers come; nil while the process runs
	ended   chan struct{}
	stderr  lockedBuffer
}

// start starts a process. It ends with the test, if not before.
func (st *store) start() *proc { return st.startAs(nil, nil) }

func (st *store) startN(n int) []*proc {
	procs := make([]*proc, n)
	var group sync.WaitGroup
	for i := range procs {
		group.Go(func() { procs[i] = st.start() })
	}
	group.Wait()
	return procs
}

// startAs starts a process with additional environment variables, by a command that
// takes another command as its arguments, such as strace.
func (st *store) startAs(command, env []string) *proc {
	t := st.t
	t.Helper()
	line := append(slices.Clone(command), strings.Fields(os.Getenv(envExec))...)
	line = append(line, program(t, env), "-test.run=^$")
	p := &proc{t: t, st: st, waiting: map[int]*pending{}, ended: make(chan struct{})}
	p.cmd = exec.Command(line[0], line[1:]...)
	p.cmd.Env = append(append(os.Environ(), envChild+"=1", keymap.EnvDir+"="+st.dir,
		"GORACE=atexit_sleep_ms=0"), env...) // without it, the race detector sleeps a second at each exit
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.in = in
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.finish)
	hello := p.expect(0)
	go p.listen(out)
	if a, err := hello.outcome(); err == nil {
		p.pid = a.N
	} else {
		t.Fatalf("the process did not start: %v\n%s", err, &p.stderr)
	}
	return p
}

// beginAtOnce begins a call in each process. The calls wait for the gates of their
// processes, which it then opens.
func beginAtOnce(procs []*proc, r func(i int) request) []*pending {
	calls := make([]*pending, len(procs))
	for i, p := range procs {
		calls[i] = p.begin(r(i))
	}
	for _, p := range procs {
		p.begin(request{Op: "go"})
	}
	return calls
}

// needNative skips a test of what the kernel reports about a process if an emulator runs
// the processes.
func needNative(t testing.TB) {
	t.Helper()
	if os.Getenv(envExec) != "" || os.Getenv(envEmu) != "" {
		t.Skip("an emulator runs the processes")
	}
}

// self returns the path of this test binary.
func self(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	return path
}

// program returns the program to start: the one that env names, or this test binary.
func program(t testing.TB, env []string) string {
	t.Helper()
	for _, e := range env {
		if path, ok := strings.CutPrefix(e, envSelf+"="); ok {
			return path
		}
	}
	return self(t)
}

// listen hands each answer to its call, until the process ends.
func (p *proc) listen(out io.Reader) {
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil {
			break
		}
		var a answer
		if json.Unmarshal(line, &a) != nil {
			continue // the output of another program
		}
		p.mu.Lock()
		w := p.waiting[a.ID]
		delete(p.waiting, a.ID)
		p.mu.Unlock()
		if w != nil {
			w.answer <- a
		}
	}
	err := p.cmd.Wait()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.over = fmt.Errorf("the process has ended: %v", err)
	for _, w := range p.waiting {
		close(w.answer)
	}
	clear(p.waiting)
	close(p.ended)
}

func (p *proc) expect(id int) *pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &pending{p: p, id: id, answer: make(chan answer, 1)}
	if p.over != nil {
		close(w.answer)
	} else {
		p.waiting[id] = w
	}
	return w
}

// begin starts a call and does not wait for its end.
func (p *proc) begin(r request) *pending {
	p.mu.Lock()
	p.last++
	r.ID = p.last
	p.mu.Unlock()
	w := p.expect(r.ID)
	w.op = r.Op
	line, err := json.Marshal(r)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.in.Write(append(line, '\n')) // if the process has ended, outcome reports it
	p.mu.Unlock()
	return w
}

// try makes a call.
func (p *proc) try(r request) (answer, error) {
	p.t.Helper()
	return p.begin(r).outcome()
}

// do makes a call that must succeed.
func (p *proc) do(r request) answer {
	p.t.Helper()
	a, err := p.try(r)
	if err != nil {
		p.t.Fatalf("process %d: %s: %v\n%s", p.pid, r.Op, err, &p.stderr)
	}
	return a
}

// A pending is a call whose answer may not have come yet.
type pending struct {
	p      *proc
	id     int
	op     string
	answer chan answer
	got    *answer
}

var errEnded = errors.New("the process ended during the call")

// outcome waits for the end of the call.
func (w *pending) outcome() (answer, error) {
	w.p.t.Helper()
	if w.got == nil {
		select {
		case a, ok := <-w.answer:
			if !ok {
				return answer{}, errEnded
			}
			w.got = &a
		case <-time.After(patience):
			w.p.dump()
			w.p.t.Fatalf("process %d: %s has not ended after %v\n%s", w.p.pid, w.op, patience, &w.p.stderr)
		}
	}
	if w.got.Error != nil {
		return *w.got, w.got.Error
	}
	return *w.got, nil
}

// must waits for the end of a call that must succeed.
func (w *pending) must() answer {
	w.p.t.Helper()
	a, err := w.outcome()
	if err != nil {
		w.p.t.Fatalf("process %d: %s: %v\n%s", w.p.pid, w.op, err, &w.p.stderr)
	}
	return a
}

// done reports whether the call has ended.
func (w *pending) done() bool { return w.got != nil || len(w.answer) > 0 }

// cancel ends the context of the call.
func (w *pending) cancel() {
	w.p.t.Helper()
	w.p.do(request{Op: "cancel", N: w.id})
}

// kill ends the process as the system does when memory runs out: at once, and
// whatever it is doing. The process has ended when kill returns.
func (p *proc) kill() {
	p.t.Helper()
	if p.pid == p.cmd.Process.Pid {
		p.cmd.Process.Kill()
	} else {
		p.begin(request{Op: "die"}) // the process might outlive its wrapper
	}
	p.awaitEnd()
}

// exit makes the process exit by itself, without detaching.
func (p *proc) exit() {
	p.t.Helper()
	p.begin(request{Op: "exit"})
	p.awaitEnd()
}

func (p *proc) awaitEnd() {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(patience):
		p.t.Fatalf("process %d has not ended after %v", p.pid, patience)
	}
}

// finish lets the process exit by itself at the end of the test, and kills it if it does
// not.
func (p *proc) finish() {
	p.mu.Lock()
	p.in.Close()
	p.mu.Unlock()
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
		p.cont() // it may be stopped
		p.cmd.Process.Kill()
		p.awaitEnd()
	}
	if strings.Contains(p.stderr.String(), "DATA RACE") || strings.Contains(p.stderr.String(), "panic:") || strings.Contains(p.stderr.String(), "fatal error:") {
		p.t.Errorf("process %d:\n%s", p.pid, &p.stderr)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// lockedBuffer keeps the standard error of a process.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (st *store) wantFilesAfterSweep(keys ...string) {
	st.t.Helper()
	if _, err := shm.Sweep(shm.Dir(st.dir)); err != nil {
		st.t.Error(err)
	}
	st.wantFiles(keys...)
}
