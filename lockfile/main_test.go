package lockfile

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Where a promise is about processes, the test binary runs itself again as the
// other one: the environment says what it is to do.
const roleEnv = "LOCKFILE_TEST_ROLE"

// roles get one argument. Each prints a line when it is ready, and ends with its
// standard input.
var roles = map[string]func(arg string) error{
	"inside":  insideRole,
	"present": presentRole,
	"exec":    execRole,
	"idle":    func(string) error { return ready("idle") },
	"asks":    asksRole,
}

func TestMain(m *testing.M) {
	name, arg, _ := strings.Cut(os.Getenv(roleEnv), " ")
	if name == "" {
		os.Exit(m.Run())
	}
	if err := roles[name](arg); err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

// ready says so, and waits for the end of the standard input.
func ready(line string) error {
	fmt.Println(line)
	io.Copy(io.Discard, os.Stdin)
	return nil
}

func insideRole(path string) error {
	door, err := Enter(context.Background(), path)
	if err != nil {
		return err
	}
	return ready(door.Info().Name())
}

func presentRole(dir string) error {
	p, err := Announce(dir)
	if err != nil {
		return err
	}
	return ready(fmt.Sprint(p.Token()))
}

// execRole announces itself and then starts a program that outlives it.
func execRole(dir string) error {
	p, err := Announce(dir)
	if err != nil {
		return err
	}
	child := exec.Command(os.Args[0])
	child.Env = append(os.Environ(), roleEnv+"=idle")
	child.Stdin = os.Stdin
	out, err := child.StdoutPipe()
	if err != nil {
		return err
	}
	if err := child.Start(); err != nil {
		return err
	}
	if _, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		return err
	}
	fmt.Println(p.Token(), child.Process.Pid)
	return nil // without Withdraw, as in a crash
}

// asksRole says whether the token in "dir token" is alive.
func asksRole(arg string) error {
	var dir string
	var token uint64
	if _, err := fmt.Sscan(arg, &dir, &token); err != nil {
		return err
	}
	fmt.Println(Alive(dir, token))
	return nil
}

// other is another process.
type other struct {
	t     *testing.T
	cmd   *exec.Cmd
	stdin io.Closer
	said  string // its first line
}

// start starts another process, and waits for its first line.
func start(t *testing.T, role, arg string, prepare ...func(*exec.Cmd)) *other {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+role+" "+arg)
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
	o := &other{t: t, cmd: cmd, stdin: stdin}
	t.Cleanup(o.kill)
	line, err := bufio.NewReader(stdout).ReadString('\n')
	o.said = strings.TrimSpace(line)
	if err != nil || strings.HasPrefix(line, "error:") {
		t.Fatalf("%s: %q, %v", role, line, err)
	}
	return o
}

// token is what a process that is present has said.
func (o *other) token() (token uint64) {
	o.t.Helper()
	if _, err := fmt.Sscan(o.said, &token); err != nil {
		o.t.Fatalf("no token: %q", o.said)
	}
	return token
}

// kill kills the process, and returns when it is dead.
func (o *other) kill() {
	if o.cmd.ProcessState == nil {
		o.cmd.Process.Kill()
		o.cmd.Wait()
	}
	o.stdin.Close()
}
