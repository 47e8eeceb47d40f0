//go:build unix

package lockfile

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestStoppedProcessIsAlive(t *testing.T) {
	dir := t.TempDir()
	other := start(t, "present", dir)
	if err := other.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	var status syscall.WaitStatus
	if _, err := syscall.Wait4(other.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
		t.Fatalf("not stopped: %v, %v", status, err)
	}
	if !Alive(dir, other.token()) || Bury(dir, other.token()) {
		t.Error("a stopped process is taken for dead")
	}
}

func TestPresenceIsNotInherited(t *testing.T) {
	dir := t.TempDir()
	parent := start(t, "exec", dir)
	var token uint64
	var child int
	if _, err := fmt.Sscan(parent.said, &token, &child); err != nil {
		t.Fatal(err)
	}
	parent.cmd.Wait()
	if err := syscall.Kill(child, 0); err != nil {
		t.Fatalf("the child is gone too: %v", err)
	}
	if Alive(dir, token) {
		t.Error("a program that a dead process has started keeps it alive")
	}
	parent.stdin.Close() // ends the child
}

func TestPresenceIsReadableInSpiteOfUmask(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0o077))
	dir := t.TempDir()
	p := announce(t, dir)
	if info, err := os.Stat(presencePath(dir, p.Token())); err != nil || info.Mode() != 0o644 {
		t.Errorf("%v, %v: who shares the store cannot ask", info.Mode(), err)
	}
}

// everyoneDir is a directory that other users may enter.
func everyoneDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	return dir
}

// asNobody runs the process as a user that has no rights. The test binary lies
// where only its owner may go, so it needs a copy.
func asNobody(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run as another user")
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(everyoneDir(t), "test")
	if err := os.WriteFile(copied, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = copied, copied
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	}
}

func TestAnotherUserCanAsk(t *testing.T) {
	nobody := asNobody(t)
	dir := everyoneDir(t)
	p := announce(t, dir)
	if answer := start(t, "asks", fmt.Sprintf("%s %d", dir, p.Token()), nobody).said; answer != "true" {
		t.Errorf("alive: %s", answer)
	}
	dead := start(t, "present", dir)
	dead.kill()
	if answer := start(t, "asks", fmt.Sprintf("%s %d", dir, dead.token()), nobody).said; answer != "false" {
		t.Errorf("dead, but alive: %s", answer)
	}
}

func TestUnreadablePresenceIsAlive(t *testing.T) {
	nobody := asNobody(t)
	dir := everyoneDir(t)
	if err := os.WriteFile(presencePath(dir, 42), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if answer := start(t, "asks", dir+" 42", nobody).said; answer != "true" {
		t.Errorf("what cannot be asked is taken for dead: alive is %s", answer)
	}
}

// Whatever stands where a presence should be: asking does not hang, and what is
// no file is not removed.
func TestPresenceThatIsNoFile(t *testing.T) {
	for name, path := range irregular(t) {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Dir(path)
			if err := os.Rename(path, presencePath(dir, 42)); err != nil {
				t.Fatal(err)
			}
			defer os.Rename(presencePath(dir, 42), path)
			if Bury(dir, 42); !exists(presencePath(dir, 42)) {
				t.Error("it was removed")
			}
			Alive(dir, 42)
		})
	}
}

func TestAnnounceNamesTheFile(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	dir := t.TempDir()
	os.Chmod(dir, 0o500)
	defer os.Chmod(dir, 0o700)
	if _, err := Announce(dir); !os.IsPermission(err) || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
}
