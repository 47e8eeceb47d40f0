//go:build unix

package keymap

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestStoreIsInTheTempDirectoryWhereSharedMemoryIsNotWritable(t *testing.T) {
	if runAsNobody(t) {
		return
	}
	shared, temp := ownStores(t)
	os.Chmod(shared, 0o500)
	t.Cleanup(func() { os.Chmod(shared, 0o700) })
	wantDir(t, "", filepath.Join(temp, ownName()))
}

func TestStoreThatExistsIsUsedWhereSharedMemoryIsNotWritable(t *testing.T) {
	if runAsNobody(t) {
		return
	}
	shared, _ := ownStores(t)
	own := filepath.Join(shared, ownName())
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	os.Chmod(shared, 0o500)
	t.Cleanup(func() { os.Chmod(shared, 0o700) })
	wantDir(t, "", own)
}

func TestStoreThatMayNotBeMade(t *testing.T) {
	if runAsNobody(t) {
		return
	}
	ownStores(t)
	parent := t.TempDir()
	os.Chmod(parent, 0o500)
	t.Cleanup(func() { os.Chmod(parent, 0o700) })
	if _, err := Make(filepath.Join(parent, "store")); !os.IsPermission(err) {
		t.Errorf("%v; want fs.ErrPermission", err)
	}
}

// runAsNobody runs the test in a child process without privileges, if this one is
// root's: root may write everywhere. It reports whether it did.
func runAsNobody(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() != 0 {
		return false
	}
	dir, err := os.MkdirTemp("", "keymap")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, 0o777)
	binary, err := os.ReadFile(os.Args[0]) // which is where only its owner may go
	if err != nil {
		t.Fatal(err)
	}
	test := filepath.Join(dir, "test")
	if err := os.WriteFile(test, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(test, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TMPDIR="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as another user: %v\n%s", err, out)
	}
	return true
}
