package shm

import (
	"bufio"
	"testing"

	"qshm/keymap"
)

func init() {
	roles["attach and stay"] = attachAndStayRole
}

// attachAndStayRole attaches, and ends with its input without detaching: what it
// has may be no segment any more.
func attachAndStayRole(key string) error {
	if _, err := Attach(key); err != nil {
		return err
	}
	return readyToDie()
}

// attachedProcess starts a process that is attached to key in dir.
func attachedProcess(t testing.TB, dir string) (stop func()) {
	t.Helper()
	cmd := command("attach and stay", key)
	cmd.Env = append(cmd.Env, keymap.EnvDir+"="+dir)
	stdin := must(cmd.StdinPipe())(t)
	stdout := must(cmd.StdoutPipe())(t)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil || line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}
	return func() {
		stdin.Close()
		cmd.Wait()
	}
}
