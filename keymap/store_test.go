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

// wantDir asks Make and Find for a store that there must be.
func wantDir(t *testing.T, explicit, want string) {
	t.Helper()
	got, err := Make(explicit)
	if err != nil || got != want {
		t.Fatalf("Make(%q) = %q, %v; want %q", explicit, got, err, want)
	}
	if info, err := os.Stat(want); err != nil || !info.IsDir() {
		t.Fatalf("no directory at %s: %v", want, err)
	}
	if got, err := Find(explicit); err != nil || got != want {
		t.Fatalf("Find(%q) = %q, %v; want %q", explicit, got, err, want)
	}
}

// wantRefusal asks Make for a store that must be refused, in an error that wraps kind
// and names the directory once. Find must refuse it too.
func wantRefusal(t *testing.T, explicit, dir string, kind error) {
	t.Helper()
	for name, f := range map[string]func(string) (string, error){"Make": Make, "Find": Find} {
		got, err := f(explicit)
		var path *fs.PathError
		if got != "" || !errors.As(err, &path) || path.Path != dir || strings.Count(err.Error(), dir) != 1 {
			t.Fatalf("%s(%q) = %q, %v; want an *fs.PathError about %s", name, explicit, got, err, dir)
		}
		if kind != nil && !errors.Is(err, kind) {
			t.Fatalf("%s(%q): %v; want it to wrap: %v", name, explicit, err, kind)
		}
		if errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s(%q): %v: reported as missing", name, explicit, err)
		}
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
	if runtime.GOOS == "windows" {
		t.Skip("no /dev/shm on Windows")
	}
	shared, _ := ownStores(t)
	wantDir(t, "", filepath.Join(shared, ownName()))
}

func TestFindDoesNotMake(t *testing.T) {
	shared, temp := ownStores(t)
	explicit := filepath.Join(t.TempDir(), "a", "b")
	for _, dir := range []string{"", explicit} {
		got, err := Find(dir)
		var path *fs.PathError
		if got != "" || !errors.As(err, &path) || !errors.Is(err, fs.ErrNotExist) || dir != "" && path.Path != dir {
			t.Errorf("Find(%q) = %q, %v; want fs.ErrNotExist", dir, got, err)
		}
	}
	for _, dir := range []string{shared, temp, filepath.Dir(filepath.Dir(explicit))} {
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("made in %s: %v, %v", dir, left, err)
		}
	}
}

func TestStoreIsInTheTempDirectoryWithoutSharedMemory(t *testing.T) {
	_, temp := ownStores(t)
	sharedMemory = filepath.Join(t.TempDir(), "missing")
	wantDir(t, "", filepath.Join(temp, ownName()))
}

// Going to another directory because the first one cannot be used would separate this
// process from those that use it already.
func TestTempDirectoryIsNoSubstituteForAnUnusableStore(t *testing.T) {
	needModes(t)
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
		dir, err := Make(explicit)
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
				if _, err := Make(""); err != nil {
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
	if _, err := Make(explicit); !strings.Contains(err.Error(), "symbolic link") {
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
	_, temp := ownStores(t)
	sharedMemory = filepath.Join(t.TempDir(), "missing")
	if err := os.Remove(temp); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(""); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), temp) {
		t.Errorf("in a temp directory that does not exist: %v", err)
	}
	parent := t.TempDir()
	file := filepath.Join(parent, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Make(filepath.Join(file, "store")); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("below a file: %v", err)
	}
}
