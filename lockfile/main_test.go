package lockfile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// childEnv makes the test binary a child process of a test. The child carries out the
// commands that it reads from its standard input, or with "idle" none.
const childEnv = "LOCKFILE_TEST_CHILD"

func TestMain(m *testing.M) {
	switch os.Getenv(childEnv) {
	case "":
		os.Exit(m.Run())
	case "idle":
		io.Copy(io.Discard, os.Stdin)
	default:
		serve()
	}
}

// What a child process holds.
var (
	childFile  *File
	childSlots *Slots
)

// commands of a child process. Each gets its arguments and returns its reply.
var commands = map[string]func(args []string) (any, error){
	"lock": func(args []string) (_ any, err error) {
		childFile, err = Lock(context.Background(), args[0])
		return "locked", err
	},
	"remove": func([]string) (any, error) { return "removed", childFile.Remove() },
	"visit": func(args []string) (any, error) {
		rounds, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, err
		}
		return "done", visit(args[0], rounds)
	},
	"slots": func(args []string) (any, error) {
		flag, err := strconv.Atoi(args[1])
		if err != nil {
			return nil, err
		}
		kind, err := strconv.Atoi(args[2])
		if err != nil {
			return nil, err
		}
		file, err := Open(args[0], flag)
		if err != nil {
			return nil, err
		}
		childSlots, err = NewSlots(file, Kind(kind), testSlots, testID)
		return "open", err
	},
	"claim":   func(args []string) (any, error) { return childSlots.Claim(slot(args)) },
	"release": func(args []string) (any, error) { childSlots.Release(slot(args)); return "released", nil },
	"held":    func(args []string) (any, error) { return childSlots.Held(slot(args)), nil },
	"others":  func([]string) (any, error) { return childSlots.OthersHold(all), nil },
	"ask": func(args []string) (any, error) { // until the end of the process
		fmt.Println("asking")
		for {
			childSlots.Held(slot(args))
			childSlots.OthersHold(all)
			time.Sleep(time.Millisecond)
		}
	},
	"spawn": func([]string) (any, error) {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=idle")
		cmd.Stdin = os.Stdin
		err := cmd.Start()
		return cmd.Process.Pid, err
	},
}

func slot(args []string) int {
	i, err := strconv.Atoi(args[0])
	if err != nil {
		panic(err)
	}
	return i
}

func all(int) bool { return true }

func serve() {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		words := strings.Split(lines.Text(), "\t")
		reply, err := commands[words[0]](words[1:])
		if err != nil {
			reply = "error: " + err.Error()
		}
		fmt.Println(reply)
	}
}

// A child is another process.
type child struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.WriteCloser
	reply *bufio.Reader
}

func start(t *testing.T, prepare ...func(*exec.Cmd)) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=serve")
	cmd.Stderr = os.Stderr
	for _, p := range prepare {
		p(cmd)
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := &child{t, cmd, stdin, bufio.NewReader(stdout)}
	t.Cleanup(c.kill)
	return c
}

// try sends a command and returns the reply.
func (c *child) try(words ...any) string {
	c.t.Helper()
	for i, w := range words {
		sep := "\t"
		if i == len(words)-1 {
			sep = "\n"
		}
		if _, err := fmt.Fprint(c.stdin, w, sep); err != nil {
			c.t.Fatalf("%v: %v", words, err)
		}
	}
	line, err := c.reply.ReadString('\n')
	if err != nil {
		c.t.Fatalf("%v: %q, %v", words, line, err)
	}
	return strings.TrimSpace(line)
}

// do is try for a command that must not fail.
func (c *child) do(words ...any) string {
	c.t.Helper()
	reply := c.try(words...)
	if strings.HasPrefix(reply, "error:") {
		c.t.Fatalf("%v: %s", words, reply)
	}
	return reply
}

// want is do for a command with an expected reply.
func (c *child) want(reply any, words ...any) {
	c.t.Helper()
	if got := c.do(words...); got != fmt.Sprint(reply) {
		c.t.Errorf("child process: %v: %s, want %v", words, got, reply)
	}
}

// kill kills the process, and returns when it is dead.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		c.cmd.Process.Kill()
		c.cmd.Wait()
	}
	c.stdin.Close()
}

// eventually waits until the condition holds. In wine, locks outlast a killed process
// by some milliseconds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !condition(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

// mustBlock runs f and fails the test if it returns soon. The function returned waits
// for f.
func mustBlock(t *testing.T, what string, f func()) (wait func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		f()
		close(done)
	}()
	select {
	case <-done:
		t.Fatalf("%s did not block", what)
	case <-time.After(20 * time.Millisecond):
	}
	return func() {
		t.Helper()
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s is still blocked", what)
		}
	}
}
