package keymap

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
)

// ownStores makes the defaults point into directories of the test.
func ownStores(t *testing.T) (shared, temp string) {
	t.Helper()
	shared, temp = t.TempDir(), t.TempDir()
	before := sharedMemory
	sharedMemory = shared
	t.Cleanup(func() { sharedMemory = before })
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp) // on Windows
	t.Setenv(EnvDir, "")
	return shared, temp
}

func wantDir(t *testing.T, explicit, want string) {
	t.Helper()
	got, err := Dir(explicit)
	if err != nil || got != want {
		t.Fatalf("Dir(%q) = %q, %v; want %q", explicit, got, err, want)
	}
	if info, err := os.Stat(want); err != nil || !info.IsDir() {
		t.Fatalf("no directory at %s: %v", want, err)
	}
}

// wantRefusal asks for a store that must be refused, in an error that wraps kind
// and names the directory.
func wantRefusal(t *testing.T, explicit, dir string, kind error) {
	t.Helper()
	_, err := Dir(explicit)
	var path *fs.PathError
	if !errors.As(err, &path) || path.Path != dir {
		t.Fatalf("Dir(%q): %v; want an *fs.PathError about %s", explicit, err, dir)
	}
	if kind != nil && !errors.Is(err, kind) {
		t.Fatalf("Dir(%q): %v; want it to be: %v", explicit, err, kind)
	}
}

func needModes(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there are no owners and modes to check on Windows")
	}
}

func TestExplicitStoreComesFirst(t *testing.T) {
	ownStores(t)
	t.Setenv(EnvDir, t.TempDir())
	dir := filepath.Join(t.TempDir(), "store")
	wantDir(t, dir, dir)
}

func TestEnvironmentComesBeforeTheDefault(t *testing.T) {
	ownStores(t)
	dir := filepath.Join(t.TempDir(), "store")
	t.Setenv(EnvDir, dir)
	wantDir(t, "", dir)
}

func TestStoreIsInSharedMemory(t *testing.T) {
	shared, _ := ownStores(t)
	wantDir(t, "", filepath.Join(shared, ownName()))
}

func TestStoreIsInTheTempDirectoryWithoutSharedMemory(t *testing.T) {
	_, temp := ownStores(t)
	sharedMemory = filepath.Join(t.TempDir(), "missing")
	wantDir(t, "", filepath.Join(temp, ownName()))
}

func TestStoreIsInTheTempDirectoryWhereSharedMemoryIsNotWritable(t *testing.T) {
	needModes(t)
	if os.Geteuid() == 0 {
		t.Skip("root may write everywhere")
	}
	shared, temp := ownStores(t)
	os.Chmod(shared, 0o500)
	t.Cleanup(func() { os.Chmod(shared, 0o700) })
	wantDir(t, "", filepath.Join(temp, ownName()))
}

// To go to another directory because somebody spoils the first would part us
// from those who are there already.
func TestSpoiltStoreIsNotReplacedByTheTempDirectory(t *testing.T) {
	shared, temp := ownStores(t)
	own := filepath.Join(shared, ownName())
	if err := os.WriteFile(own, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "", own, nil)
	if left, _ := os.ReadDir(temp); len(left) != 0 {
		t.Errorf("the temp directory was used: %v", left)
	}
}

func TestStoresOfUsersHaveDifferentNames(t *testing.T) {
	needModes(t)
	if name := ownName(); !strings.HasPrefix(name, "qshm-") || strings.Trim(name[5:], "0123456789") != "" {
		t.Errorf("the user's store is called %q", name)
	}
}

func TestStoreIsMadeForTheUserAlone(t *testing.T) {
	needModes(t)
	shared, _ := ownStores(t)
	for _, explicit := range []string{"", filepath.Join(t.TempDir(), "a", "b")} {
		dir, err := Dir(explicit)
		if err != nil {
			t.Fatal(err)
		}
		if info, _ := os.Stat(dir); info.Mode().Perm() != 0o700 {
			t.Errorf("%s was made with mode %04o", strings.TrimPrefix(dir, shared), info.Mode().Perm())
		}
	}
}

func TestRelativeStoreIsMadeAbsolute(t *testing.T) {
	ownStores(t)
	t.Chdir(t.TempDir())
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	wantDir(t, "store", filepath.Join(here, "store"))
}

func TestManyMakeTheStoreAtOnce(t *testing.T) {
	ownStores(t)
	for range 50 {
		sharedMemory = t.TempDir()
		var wg sync.WaitGroup
		start := make(chan struct{})
		for range 8 {
			wg.Go(func() {
				<-start
				if _, err := Dir(""); err != nil {
					t.Error(err)
				}
			})
		}
		close(start)
		wg.Wait()
	}
}

func TestStoreMayNotBeASymbolicLink(t *testing.T) {
	shared, _ := ownStores(t)
	target := t.TempDir()
	own, explicit := filepath.Join(shared, ownName()), filepath.Join(t.TempDir(), "link")
	for _, link := range []string{own, explicit} {
		if err := os.Symlink(target, link); err != nil {
			t.Skip("no symbolic links here:", err)
		}
		if _, err := os.Lstat(link); err != nil {
			t.Skip("no link was made, though wine said so:", err)
		}
	}
	wantRefusal(t, "", own, nil)
	wantRefusal(t, explicit, explicit, nil)
	if _, err := Dir(explicit); !strings.Contains(err.Error(), "symbolic link") {
		t.Errorf("%v: does not say what is wrong with it", err)
	}
	t.Setenv(EnvDir, explicit)
	wantRefusal(t, "", explicit, nil)
}

func TestStoreMayNotBeADanglingLink(t *testing.T) {
	ownStores(t)
	link := filepath.Join(t.TempDir(), "link")
	target := filepath.Join(t.TempDir(), "target")
	if err := os.Symlink(target, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Skip("no link was made, though wine said so:", err)
	}
	wantRefusal(t, link, link, nil)
	if _, err := os.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the link's target was made")
	}
}

func TestStoreMayNotBeAFile(t *testing.T) {
	ownStores(t)
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, file, file, nil)
	if content, _ := os.ReadFile(file); string(content) != "mine" {
		t.Errorf("the file holds %q now", content)
	}
}

func TestStoreMayNotBelongToAnotherUser(t *testing.T) {
	needModes(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	shared, _ := ownStores(t)
	own := filepath.Join(shared, ownName())
	if err := errors.Join(os.Mkdir(own, 0o700), os.Chown(own, 65534, 65534)); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, "", own, fs.ErrPermission)
}

func TestExplicitStoreMayBelongToAnotherUser(t *testing.T) {
	needModes(t)
	if os.Geteuid() != 0 {
		t.Skip("only root can give a directory away")
	}
	ownStores(t)
	dir := t.TempDir()
	if err := os.Chown(dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	wantDir(t, dir, dir)
}

func TestOwnStoreMayNotBeOpenToOthers(t *testing.T) {
	needModes(t)
	shared, _ := ownStores(t)
	own := filepath.Join(shared, ownName())
	if err := os.Mkdir(own, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, mode := range []fs.FileMode{0o755, 0o710, 0o701, 0o770, 0o777, 0o1777} {
		os.Chmod(own, mode)
		wantRefusal(t, "", own, fs.ErrPermission)
	}
	os.Chmod(own, 0o700)
	wantDir(t, "", own)
}

func TestExplicitStoreMayBeOpenToOthers(t *testing.T) {
	needModes(t)
	ownStores(t)
	dir := t.TempDir()
	for _, mode := range []fs.FileMode{0o755, 0o770, 0o777} {
		os.Chmod(dir, mode)
		wantDir(t, dir, dir)
		if info, _ := os.Stat(dir); info.Mode().Perm() != mode {
			t.Errorf("mode %04o was changed to %04o", mode, info.Mode().Perm())
		}
	}
}

func TestStoreThatCannotBeMade(t *testing.T) {
	ownStores(t)
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Dir(filepath.Join(file, "store")); err == nil {
		t.Error("a store was made below a file")
	}
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		return // may write everywhere
	}
	os.Chmod(parent, 0o500)
	t.Cleanup(func() { os.Chmod(parent, 0o700) })
	dir := filepath.Join(parent, "store")
	wantRefusal(t, dir, dir, fs.ErrPermission)
}
