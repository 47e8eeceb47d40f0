package shm

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"qshm/keymap"
	"qshm/lockfile"
)

func init() {
	roles["group owner"] = groupOwnerRole
	roles["group member"] = groupMemberRole
}

// groupOwnerRole creates a segment for its group, and detaches with its input.
func groupOwnerRole(string) error {
	syscall.Umask(0o022)
	seg, err := Create(key, 64, Perm(0o660))
	if err != nil {
		return err
	}
	if err := ready(); err != nil {
		return err
	}
	return seg.Detach()
}

// groupMemberRole makes all calls with another user's segment.
func groupMemberRole(string) error {
	seg, created, err := Open(key, 64)
	if err != nil || created {
		return fmt.Errorf("open: created %v, %w", created, err)
	}
	if info, err := Stat(key); err != nil || info.Attached != 2 {
		return fmt.Errorf("stat: %d attached, %w", info.Attached, err)
	}
	if _, err := seg.WriteAt([]byte("hello"), 0); err != nil {
		return err
	}
	if err := seg.Detach(); err != nil {
		return err
	}
	if _, err := Create(key, 64); !errors.Is(err, ErrExist) {
		return fmt.Errorf("create: %w", err)
	}
	if seg, err = Attach(key); err != nil {
		return err
	}
	if err := seg.Detach(); err != nil {
		return err
	}
	if seg, err = Create("own", 64, Perm(0o660)); err != nil {
		return err
	}
	fmt.Println("ok")
	return seg.Detach()
}

// In a sticky directory of several users, Linux can refuse to open another user's file
// with O_CREAT, also where the file's own permissions allow it.
func TestStickyStoreWithProtectedRegular(t *testing.T) {
	const setting = "/proc/sys/fs/protected_regular"
	if os.Geteuid() != 0 {
		t.Skip("only root can be several users, and change the setting")
	}
	before, err := os.ReadFile(setting)
	if err != nil {
		t.Skip("no such setting:", err)
	}
	if err := os.WriteFile(setting, []byte("2"), 0); err != nil {
		t.Skip("the setting cannot be changed here:", err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(setting, before, 0); err != nil {
			t.Error(err)
		}
	})

	const group = 65530
	top := must(os.MkdirTemp("/tmp", "qshm-test-"))(t) // where the other users can reach the program
	t.Cleanup(func() { os.RemoveAll(top) })
	dir := filepath.Join(top, "store")
	binary := filepath.Join(top, "test")
	program := must(os.ReadFile(must(os.Executable())(t)))(t)
	for _, err := range []error{
		os.Chmod(top, 0o755), os.Mkdir(dir, 0o700), os.Chown(dir, 65531, group),
		os.Chmod(dir, 0o770|os.ModeSticky|os.ModeSetgid), os.WriteFile(binary, program, 0o755),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	as := func(uid uint32, role string) *exec.Cmd {
		cmd := command(role, "")
		cmd.Path, cmd.Args = binary, []string{binary}
		cmd.Env = append(cmd.Env, keymap.EnvDir+"="+dir)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: group}}
		return cmd
	}
	owner := as(65532, "group owner")
	stdin := must(owner.StdinPipe())(t)
	stdout := must(owner.StdoutPipe())(t)
	if err := owner.Start(); err != nil {
		t.Skip("cannot be another user here:", err)
	}
	lines := bufio.NewReader(stdout)
	if line, err := lines.ReadString('\n'); line != "ready\n" {
		t.Errorf("%q, %v", line, err)
	}

	// If the setting is in force, opening with O_CREAT fails.
	probe := as(65533, "")
	probe.Path, probe.Args = "/bin/sh", []string{"sh", "-c", `: >>"$0"`, segmentPath(dir, key)}
	probe.Stderr = nil
	if probe.Run() == nil {
		t.Log("the setting is without effect here")
	}
	if out, err := as(65533, "group member").Output(); err != nil || string(out) != "ok\n" {
		t.Errorf("another member of the group: %s, %v", out, err)
	}
	stdin.Close()
	if err := owner.Wait(); err != nil {
		line, _ := lines.ReadString('\n')
		t.Errorf("the owner: %s, %v", line, err)
	}
	if lockKind(t) == lockfile.RecordLocks { // a sibling file can be removed by its own user only
		wantFiles(t, dir)
	}
}
