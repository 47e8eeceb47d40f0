package test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
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

// The test's side of its processes: starting them, calling the library in them, and
// ending them. The side of the processes is in harness_child_test.go.

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

var self = func() func(t testing.TB) string {
	find := sync.OnceValues(os.Executable)
	return func(t testing.TB) string {
		t.Helper()
		path, err := find()
		if err != nil {
			t.Fatal(err)
		}
		return path
	}
}()

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

func key(k string) []byte { return []byte(k) }

func (p *proc) tryCreate(k string, size int, o ...opts) (*attachment, error) {
	p.t.Helper()
	s, _, err := p.attachBy(request{Op: "create", Key: key(k), N: size}, o)
	return s, err
}

func (p *proc) create(k string, size int, o ...opts) *attachment {
	p.t.Helper()
	s, err := p.tryCreate(k, size, o...)
	p.check("create", err)
	return s
}

func (p *proc) tryAttach(k string, o ...opts) (*attachment, error) {
	p.t.Helper()
	s, _, err := p.attachBy(request{Op: "attach", Key: key(k)}, o)
	return s, err
}

func (p *proc) attach(k string, o ...opts) *attachment {
	p.t.Helper()
	s, err := p.tryAttach(k, o...)
	p.check("attach", err)
	return s
}

func (p *proc) tryOpen(k string, size int, o ...opts) (*attachment, bool, error) {
	p.t.Helper()
	return p.attachBy(request{Op: "open", Key: key(k), N: size}, o)
}

func (p *proc) open(k string, size int, o ...opts) (s *attachment, created bool) {
	p.t.Helper()
	s, created, err := p.tryOpen(k, size, o...)
	p.check("open", err)
	return s, created
}

func (p *proc) attachBy(r request, o []opts) (*attachment, bool, error) {
	p.t.Helper()
	r.options(o)
	a, err := p.try(r)
	return &attachment{p: p, handle: a.Handle, key: string(r.Key)}, a.OK, err
}

func (p *proc) check(op string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("process %d: %s: %v\n%s", p.pid, op, err, &p.stderr)
	}
}

func (p *proc) stat(k string) shm.Info {
	p.t.Helper()
	info, err := p.tryStat(k)
	p.check("stat", err)
	return info
}

func (p *proc) tryStat(k string) (shm.Info, error) {
	p.t.Helper()
	a, err := p.try(request{Op: "stat", Key: key(k)})
	if err != nil {
		return shm.Info{}, err
	}
	return a.Infos[0], nil
}

func (p *proc) list() []shm.Info {
	p.t.Helper()
	return p.do(request{Op: "list"}).Infos
}

func (p *proc) sweep() []shm.Info {
	p.t.Helper()
	return p.do(request{Op: "sweep"}).Infos
}

func (p *proc) tryRemove(k string) error {
	p.t.Helper()
	_, err := p.try(request{Op: "remove", Key: key(k)})
	return err
}

func (p *proc) remove(k string) {
	p.t.Helper()
	p.check("remove", p.tryRemove(k))
}

// An attachment is a *shm.Segment in another process.
type attachment struct {
	p      *proc
	handle string
	key    string
}

func (s *attachment) try(r request) (answer, error) {
	s.p.t.Helper()
	r.Handle = s.handle
	return s.p.try(r)
}

func (s *attachment) do(r request) answer {
	s.p.t.Helper()
	r.Handle = s.handle
	return s.p.do(r)
}

func (s *attachment) begin(r request) *pending {
	r.Handle = s.handle
	return s.p.begin(r)
}

func (s *attachment) detach() { s.p.t.Helper(); s.do(request{Op: "detach"}) }

func (s *attachment) lock() { s.p.t.Helper(); s.do(request{Op: "lock"}) }

func (s *attachment) unlock() { s.p.t.Helper(); s.do(request{Op: "unlock"}) }

func (s *attachment) tryLock() bool { s.p.t.Helper(); return s.do(request{Op: "trylock"}).OK }

func (s *attachment) abandoned() bool { s.p.t.Helper(); return s.do(request{Op: "abandoned"}).OK }

func (s *attachment) size() int { s.p.t.Helper(); return s.do(request{Op: "size"}).N }

func (s *attachment) grow(n int) { s.p.t.Helper(); s.do(request{Op: "grow", N: n}) }

func (s *attachment) version() uint32 { s.p.t.Helper(); return s.do(request{Op: "version"}).Version }

func (s *attachment) info() shm.Info { s.p.t.Helper(); return s.do(request{Op: "info"}).Infos[0] }

func (s *attachment) goLock() *pending {
	return s.begin(request{Op: "lock"})
}

// lockWithin is LockContext with a time-out.
func (s *attachment) lockWithin(d time.Duration) error {
	s.p.t.Helper()
	_, err := s.try(request{Op: "lockcontext", Timeout: d})
	return err
}

// wantHeld checks that another attachment holds the lock, and keeps it.
func (s *attachment) wantHeld() {
	s.p.t.Helper()
	if err := s.lockWithin(livenessWait); !errors.Is(err, context.DeadlineExceeded) {
		s.p.t.Errorf("LockContext of a lock that a live owner holds: %v, want %v", err, context.DeadlineExceeded)
	}
	if s.tryLock() {
		s.p.t.Error("TryLock has taken the lock from a live owner")
	}
}

// takeOverFrom waits for the lock, and kills its owner meanwhile. Then s holds it.
func (s *attachment) takeOverFrom(owner *proc) {
	s.p.t.Helper()
	locking := s.goLock()
	owner.kill()
	locking.must()
	if !s.abandoned() {
		s.p.t.Error("Abandoned is false after the owner's death, want true")
	}
}

// livenessWait is how long wantHeld waits: longer than it takes until a waiter asks whether
// the owner is alive.
const livenessWait = 40 * time.Millisecond

func (s *attachment) write(off int64, text string) {
	s.p.t.Helper()
	s.do(request{Op: "writeat", Off: off, Data: []byte(text)})
}

func (s *attachment) read(off int64, n int) string {
	s.p.t.Helper()
	return string(s.do(request{Op: "readat", Off: off, N: n}).Data)
}

// poke and peek write and read the memory directly, without the lock.
func (s *attachment) poke(off int64, text string) {
	s.p.t.Helper()
	s.do(request{Op: "poke", Off: off, Data: []byte(text)})
}

func (s *attachment) peek(off int64, n int) string {
	s.p.t.Helper()
	return string(s.do(request{Op: "peek", Off: off, N: n}).Data)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

type request struct {
	ID      int
	Op      string
	Handle  string        `json:",omitempty"`
	Key     []byte        `json:",omitempty"`
	N       int           `json:",omitempty"`
	Off     int64         `json:",omitempty"`
	Data    []byte        `json:",omitempty"`
	Version uint32        `json:",omitempty"`
	Timeout time.Duration `json:",omitempty"`
	Opts    opts
}

func (r *request) options(o []opts) {
	if len(o) > 0 {
		r.Opts = o[0]
	}
}

type opts struct {
	ReadOnly bool          `json:",omitempty"`
	Sparse   bool          `json:",omitempty"`
	Max      int           `json:",omitempty"`
	Perm     fs.FileMode   `json:",omitempty"`
	Init     string        `json:",omitempty"` // what Init writes
	Timeout  time.Duration `json:",omitempty"`
}

type answer struct {
	ID      int
	OK      bool         `json:",omitempty"`
	Handle  string       `json:",omitempty"`
	N       int          `json:",omitempty"`
	Data    []byte       `json:",omitempty"`
	Version uint32       `json:",omitempty"`
	Infos   []shm.Info   `json:",omitempty"`
	Error   *remoteError `json:",omitempty"`
}

// remoteError is an error of another process. errors.Is finds the kinds in it.
type remoteError struct {
	Text  string
	Kinds []string
	Own   bool // the error is an *shm.Error
	Op    string
	Key   []byte
}

func (e *remoteError) Error() string { return e.Text }

func (e *remoteError) Is(target error) bool {
	for _, name := range e.Kinds {
		if kinds[name] == target {
			return true
		}
	}
	return false
}

func asRemote(err error) *remoteError {
	e := &remoteError{Text: err.Error()}
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		if errors.Is(err, kinds[name]) {
			e.Kinds = append(e.Kinds, name)
		}
	}
	var own *shm.Error
	if e.Own = errors.As(err, &own); e.Own {
		e.Op, e.Key = own.Op, []byte(own.Key)
	}
	return e
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
		t.Errorf("attached: %d, by the processes %v, want %v", info.Attached, got, want)
	}
}

func wantError(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("the error is %v, want %v", err, kind)
	}
}

// The offsets of the lock word and the event word in the file, and the bits that
// show that a process waits: see shm/FORMAT.md.
const (
	wordOff     = 192
	eventOff    = 256
	starvingBit = 1 << 30
	waitersBit  = 1 << 31
	eventArmed  = 1
)

func (st *store) header(key string) []byte {
	st.t.Helper()
	file, err := os.Open(st.path(key))
	if err != nil {
		st.t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 512)
	if _, err := file.ReadAt(b[1:], 1); err != nil {
		st.t.Fatal(err)
	}
	return b
}

func (st *store) await(what string, is func(header []byte) bool, key string) {
	st.t.Helper()
	eventually(st.t, what, func() bool { return is(st.header(key)) })
}

// awaitWaiter returns when a process has waited for the lock so long that it is starving.
func (st *store) awaitWaiter(key string) {
	st.t.Helper()
	st.await("a process waits for the lock", func(b []byte) bool {
		const both = starvingBit | waitersBit
		return binary.NativeEndian.Uint64(b[wordOff:])&both == both
	}, key)
}

// awaitWatcher returns when a process waits for the version to move.
func (st *store) awaitWatcher(key string) {
	st.t.Helper()
	st.await("a process waits for a change", func(b []byte) bool {
		return binary.NativeEndian.Uint32(b[eventOff:])&eventArmed != 0
	}, key)
}

// eventually waits until ok reports true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}

func (st *store) wantFilesAfterSweep(keys ...string) {
	st.t.Helper()
	if _, err := shm.Sweep(shm.Dir(st.dir)); err != nil {
		st.t.Error(err)
	}
	st.wantFiles(keys...)
}
