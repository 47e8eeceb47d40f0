package shm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
)

// Where a promise takes a process of its own, the test binary runs itself again; the
// environment variable roleEnv says as what.
const roleEnv = "SHM_TEST_ROLE"

var roles = map[string]func(arg string) error{
	"lock and die":      lockAndDieRole,
	"attach and die":    attachAndDieRole,
	"create and die":    createAndDieRole,
	"sleep on the lock": sleepOnTheLockRole,
	"sleep in wait":     sleepInWaitRole,
}

func TestMain(m *testing.M) {
	name, arg, _ := strings.Cut(os.Getenv(roleEnv), ":")
	if name == "" {
		os.Exit(inOwnStore(m))
	}
	if err := roles[name](arg); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// inOwnStore runs the tests with a store of their own, for those that name none, such
// as the examples.
func inOwnStore(m *testing.M) int {
	dir, err := os.MkdirTemp("", "qshm-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(keymap.EnvDir, dir)
	return m.Run()
}

func command(role, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	// Under the race detector, each process would sleep for a second at its end.
	cmd.Env = append(os.Environ(), roleEnv+"="+role+":"+arg, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts another process and waits for its first line. The process ends when
// end is called, or is killed.
func start(t testing.TB, role, arg string) (cmd *exec.Cmd, end func() error) {
	t.Helper()
	cmd = command(role, arg)
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("%s: %q, %v", role, line, err)
	}
	return cmd, func() error {
		stdin.Close()
		return cmd.Wait()
	}
}

// runThenKill starts another process, waits for its first line and kills it.
func runThenKill(t testing.TB, role, arg string) {
	t.Helper()
	cmd, _ := start(t, role, arg)
	cmd.Process.Kill()
	cmd.Wait()
}

func ready() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func attachAndDieRole(key string) error {
	if _, err := Attach(key); err != nil {
		return err
	}
	return ready()
}

func createAndDieRole(key string) error {
	if _, err := Create(key, 1); err != nil {
		return err
	}
	return ready()
}

func lockAndDieRole(key string) error {
	seg, err := Attach(key)
	if err != nil {
		return err
	}
	if err := seg.Lock(); err != nil {
		return err
	}
	copy(seg.Data(), "half-written")
	return ready()
}

// otherProcess attaches to the segment of seg with a descriptor and a mapping of its
// own. To the kernel, and so to this package, that is another process.
func otherProcess(t testing.TB, seg *Segment) *Segment {
	t.Helper()
	file := must(lockfile.Open(seg.m.path, os.O_RDWR))(t)
	c := must(readContents(file, seg.key))(t)
	m := must(newMapping(file, seg.m.path, c, false))(t)
	t.Cleanup(m.close)
	i := must(m.claim(false))(t)
	process.Lock()
	m.users++
	process.Unlock()
	return newSegment(&target{key: seg.key}, m, i)
}

// die ends an attachment that otherProcess made as the death of its process would: the
// slot locks are released, and the slot and the lock word stay as they are.
func die(seg *Segment) { seg.m.close() }

// asNewProcess calls f as if this process were not attached to any segment yet.
func asNewProcess(f func()) {
	swap := func(mappings map[lockfile.ID]*mapping) (before map[lockfile.ID]*mapping) {
		process.Lock()
		defer process.Unlock()
		before, process.mappings = process.mappings, mappings
		return before
	}
	attached := swap(nil)
	defer swap(attached)
	f()
}

// store gives the test a store of its own, which must be empty at the end.
func store(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	t.Setenv(keymap.EnvDir, dir)
	t.Cleanup(func() {
		if !t.Failed() {
			wantFiles(t, dir)
		}
	})
	return dir
}

// tempDir makes a directory, in the memory file system where there is one.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "qshm-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return must(filepath.Abs(dir))(t) // wine has a /dev/shm, on a drive
}

// files lists a directory.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	for _, e := range must(os.ReadDir(dir))(t) {
		names = append(names, e.Name())
	}
	return names
}

// wantFiles checks that a directory has these files and no other.
func wantFiles(t testing.TB, dir string, names ...string) {
	t.Helper()
	slices.Sort(names)
	if got := files(t, dir); !slices.Equal(got, names) {
		t.Errorf("the store has the files %q, want %q", got, names)
	}
}

// segmentPath returns the path of the segment file of a key.
func segmentPath(dir, key string) string { return filepath.Join(dir, keymap.Name(key)) }

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// create makes a segment that the end of the test detaches.
func create(t testing.TB, key string, size int, opts ...Option) *Segment {
	t.Helper()
	seg := must(Create(key, size, opts...))(t)
	t.Cleanup(func() { seg.Close() })
	return seg
}

func attach(t testing.TB, key string, opts ...Option) *Segment {
	t.Helper()
	seg := must(Attach(key, opts...))(t)
	t.Cleanup(func() { seg.Close() })
	return seg
}

func detach(t testing.TB, seg *Segment) {
	t.Helper()
	if err := seg.Detach(); err != nil {
		t.Fatal(err)
	}
}

func lock(t testing.TB, seg *Segment) {
	t.Helper()
	if err := seg.Lock(); err != nil {
		t.Fatal(err)
	}
}

func unlock(t testing.TB, seg *Segment) {
	t.Helper()
	if err := seg.Unlock(); err != nil {
		t.Fatal(err)
	}
}

// nothing is a function for View and Update.
func nothing([]byte) error { return nil }

// wantError checks that err is an *Error of these kinds which names the operation and
// the key, and that its text says nothing twice.
func wantError(t testing.TB, err error, op, key string, kinds ...error) {
	t.Helper()
	var own *Error
	if !errors.As(err, &own) {
		t.Errorf("error %v (%T), want an *Error", err, err)
		return
	}
	if own.Op != op || own.Key != key {
		t.Errorf("%v: Op %q and Key %q, want %q and %q", err, own.Op, own.Key, op, key)
	}
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("%v: is not of the kind %q", err, kind)
		}
	}
	text := err.Error()
	shown := strings.TrimSuffix(fmt.Sprintf("%q", key[:min(len(key), shownKey)]), `"`)
	if !strings.HasPrefix(text, "shm: "+op) || key != "" && !strings.Contains(text, shown) {
		t.Errorf("%v: does not name the operation and the key", err)
	}
	if said := saidTwice(text); said != "" {
		t.Errorf("%v: says %q twice", err, said)
	}
}

// saidTwice returns a part of an error's text, or a path in it, that occurs again.
func saidTwice(text string) string {
	text = timeOfDay.ReplaceAllString(text, "")
	seen := map[string]bool{}
	for _, part := range strings.FieldsFunc(text, func(r rune) bool { return r == ':' || r == ';' || r == '(' || r == ')' }) {
		if part = strings.TrimSpace(part); len(part) > 1 && seen[part] {
			return part
		}
		seen[part] = true
	}
	clear(seen)
	for _, word := range strings.Fields(text) {
		if word = strings.Trim(word, `"():;,`); filepath.IsAbs(word) && seen[word] {
			return word
		}
		seen[word] = true
	}
	return ""
}

// timeOfDay is a part of a text that may have the same number twice.
var timeOfDay = regexp.MustCompile(`\d\d:\d\d:\d\d`)

// eventually waits for something that another goroutine does.
func eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !done(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("not after 30 s: %s", what)
		}
	}
}

// waitForSleeper waits until a waiter sleeps, or is about to, on the segment's lock.
func waitForSleeper(t testing.TB, seg *Segment) {
	t.Helper()
	eventually(t, "a waiter marks the lock word", func() bool { return seg.head.word.Load()&waitersBit != 0 })
}

// waitForListener waits until a waiter for the version sleeps, or is about to.
func waitForListener(t testing.TB, seg *Segment) {
	t.Helper()
	eventually(t, "a waiter arms the event word", func() bool { return seg.head.event.Load()&eventArmed != 0 })
}
