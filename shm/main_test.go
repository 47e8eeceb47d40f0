package shm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"qshm/keymap"
)

// Where a promise takes a process of its own, the test binary runs itself again:
// the environment says as what.
const roleEnv = "SHM_TEST_ROLE"

var roles = map[string]func(arg string) error{
	"lock and die":      lockAndDieRole,
	"attach and die":    attachAndDieRole,
	"sleep on the lock": func(key string) error { return sleepRole(key, sleepOnTheLock) },
	"sleep on the bell": func(key string) error { return sleepRole(key, sleepOnTheBell) },
}

func TestMain(m *testing.M) {
	name, arg, _ := strings.Cut(os.Getenv(roleEnv), ":")
	if name == "" {
		os.Exit(m.Run())
	}
	if err := roles[name](arg); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func command(role, arg string) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role+":"+arg)
	cmd.Stderr = os.Stderr
	return cmd
}

// start starts another process and waits for its first line.
func start(t *testing.T, role, arg string) *exec.Cmd {
	t.Helper()
	cmd := command(role, arg)
	if _, err := cmd.StdinPipe(); err != nil { // open until Wait
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		cmd.Process.Kill()
		cmd.Wait()
		t.Fatalf("%s: %q, %v", role, line, err)
	}
	return cmd
}

// runThenKill starts another process, waits for its first line and kills it.
func runThenKill(t *testing.T, role, arg string) {
	t.Helper()
	cmd := start(t, role, arg)
	cmd.Process.Kill()
	cmd.Wait()
}

func readyToDie() error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

func attachAndDieRole(key string) error {
	if _, err := Attach(key); err != nil {
		return err
	}
	return readyToDie()
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
	return readyToDie()
}

// store gives the test a store of its own, which must be empty in the end.
func store(t testing.TB) string {
	t.Helper()
	dir := dirAt(t, "/dev/shm")
	setenv(t, keymap.EnvDir, dir)
	t.Cleanup(func() {
		if left := files(t, dir); len(left) > 0 && !t.Failed() {
			t.Errorf("left in the store: %v", left)
		}
	})
	return dir
}

func setenv(t testing.TB, name, value string) { t.Setenv(name, value) }

// dirAt makes a directory in the memory file system, where there is one.
func dirAt(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "qshm-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil { // wine has a /dev/shm, on a drive
		t.Fatal(err)
	}
	return dir
}

// files lists what is in a store.
func files(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// create makes a segment that ends with the test.
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

// wantError asks for an *Error of the kinds that names operation and key.
func wantError(t testing.TB, err error, op, key string, kinds ...error) {
	t.Helper()
	var own *Error
	if !errors.As(err, &own) {
		t.Errorf("%v (%T): want an *Error", err, err)
		return
	}
	if own.Op != op || own.Key != key {
		t.Errorf("%v: is about %q of %q, want %q of %q", err, own.Op, own.Key, op, key)
	}
	for _, kind := range kinds {
		if !errors.Is(err, kind) {
			t.Errorf("%v: want it to be: %v", err, kind)
		}
	}
	if text := err.Error(); !strings.HasPrefix(text, "shm: "+op) || key != "" && !strings.Contains(text, fmt.Sprintf("%q", key)) {
		t.Errorf("the message does not name the operation and the key: %s", text)
	}
}

// eventually waits until something can be seen that another goroutine does.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !ok(); time.Sleep(100 * time.Microsecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: has not happened in 30 s", what)
		}
	}
}

// waiting waits until somebody sleeps, or is about to, on the segment's lock.
func waiting(t testing.TB, seg *Segment) {
	t.Helper()
	eventually(t, "a waiter", func() bool { return seg.m.head.word.Load()&waitersBit != 0 })
}

// listening waits until somebody sleeps, or is about to, on its version.
func listening(t testing.TB, seg *Segment) {
	t.Helper()
	eventually(t, "a listener", func() bool { return seg.m.head.bell.Load()&bellArmed != 0 })
}

func pathOf(dir, key string) string { return filepath.Join(dir, keymap.Name(key)) }
