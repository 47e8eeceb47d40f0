package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"qshm/cmd/demo/internal/exit"
)

// demo returns a command that runs the program, with a store for the test.
func demo(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, "demo", args...)
	cmd.Env = append(os.Environ(), "QSHM_DIR="+testStore(t))
	return cmd
}

var (
	storesMu sync.Mutex
	stores   = map[string]string{} // by test
)

func testStore(t *testing.T) string {
	storesMu.Lock()
	defer storesMu.Unlock()
	dir := stores[t.Name()]
	if dir == "" {
		dir = filepath.Join(t.TempDir(), "store")
		stores[t.Name()] = dir
		t.Cleanup(func() { delete(stores, t.Name()) })
	}
	return dir
}

// nothingLeft fails the test if its store has files.
func nothingLeft(t *testing.T) {
	t.Helper()
	entries, err := os.ReadDir(testStore(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left in the store", e.Name())
	}
}

func needShell(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no shell")
	}
}

// Of many processes started at once exactly one runs its command.
func TestOneOfManyRuns(t *testing.T) {
	needShell(t)
	const many = 100
	var (
		all     sync.WaitGroup
		mu      sync.Mutex
		ran     int
		refused int
	)
	hold, release, err := os.Pipe() // the instance runs until all others have tried
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer release.Close()
	for range many {
		all.Go(func() {
			cmd := demo(t, "single", "app", "--", "sh", "-c", "read line; echo ran")
			cmd.Stdin = hold
			out, err := cmd.Output()
			mu.Lock()
			defer mu.Unlock()
			switch code := cmd.ProcessState.ExitCode(); {
			case err == nil && string(out) == "ran\n":
				ran++
			case code == exit.Busy && len(out) == 0:
				if refused++; refused == many-1 {
					io.WriteString(release, "go on\n")
				}
			default:
				t.Errorf("exit code %d, %v, output %q", code, err, out)
			}
		})
	}
	all.Wait()
	if ran != 1 || refused != many-1 {
		t.Errorf("%d ran and %d were refused, want 1 and %d", ran, refused, many-1)
	}
	nothingLeft(t)
}

// The messages of many senders at once arrive, each once and whole, and those of one
// sender in its order.
func TestMessagesArrive(t *testing.T) {
	needShell(t)
	const senders = 50
	messages := 16
	if raceEnabled {
		messages = 5 // a process takes long to start
	}
	app := exec.Command("demo", "single", "app", "--", "sh", "-c", "echo running; read line")
	app.Env = append(os.Environ(), "QSHM_DIR="+testStore(t))
	in, err := app.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	running := make(chan struct{})
	app.Stdout = io.MultiWriter(&out, &once{closes: running})
	if err := app.Start(); err != nil {
		t.Fatal(err)
	}
	defer app.Process.Kill()
	<-running
	lengths := []int{0, 1, 10, 1000, 65471, 65472, 65473, 100000}
	var all sync.WaitGroup
	for s := range senders {
		all.Go(func() {
			for m := range messages {
				padding := strings.Repeat("x", lengths[(s+m)%len(lengths)])
				cmd := demo(t, "single", "app", "--send", "--", fmt.Sprint(s), fmt.Sprint(m), padding)
				if text, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("sender %d, message %d: %v: %s", s, m, err, text)
				}
			}
		})
	}
	all.Wait()
	in.Close()
	app.Wait() // with the exit code of read at the end of its input
	next := make([]int, senders)
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	for _, line := range lines[1:] {
		var s, m int
		head, padding, _ := strings.Cut(line[strings.Index(line, " ")+1:], " ")
		fmt.Sscan(line[:strings.Index(line, " ")], &s)
		fmt.Sscan(head, &m)
		if m != next[s] {
			t.Fatalf("message %d of sender %d arrived before message %d", m, s, next[s])
		}
		next[s]++
		if want := lengths[(s+m)%len(lengths)]; len(padding) != want || strings.Trim(padding, "x") != "" {
			t.Errorf("message %d of sender %d has %d bytes of padding, want %d", m, s, len(padding), want)
		}
	}
	if len(lines)-1 != senders*messages {
		t.Errorf("%d messages arrived, want %d", len(lines)-1, senders*messages)
	}
	nothingLeft(t)
}

// once closes a channel at the first write.
type once struct {
	sync.Once
	closes chan struct{}
}

func (o *once) Write(p []byte) (int, error) {
	o.Do(func() { close(o.closes) })
	return len(p), nil
}
