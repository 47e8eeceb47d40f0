package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func open4K(t *testing.T, dir string) (file *os.File, path string) {
	t.Helper()
	path = filepath.Join(dir, "test.qshm")
	err := os.WriteFile(path, make([]byte, 4096), 0o600)
	if err == nil {
		file, err = Open(path, os.O_RDWR)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file, path
}

func TestIdentify(t *testing.T) {
	file, path := open4K(t, t.TempDir())
	info, id, err := Stat(file)
	if err != nil || info.Size() != 4096 {
		t.Fatalf("Stat: %v, %v", info, err)
	}
	if same, err := Identify(path); err != nil || same != id {
		t.Errorf("Identify: %v, %v; Stat: %v", same, err, id)
	}
	if dir, err := Identify(filepath.Dir(path)); err != nil || dir == id {
		t.Errorf("of the directory: %v, %v; of the file: %v", dir, err, id)
	}
	if err := lock(t, path).Remove(); err != nil {
		t.Fatal(err)
	}
	_, err = Identify(path)
	wantPathError(t, err, path, fs.ErrNotExist)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if other, err := Identify(path); err != nil || other == id {
		t.Errorf("of a successor: %v, %v; of the file: %v", other, err, id)
	}
}

func TestOneFileUnderTwoPathsHasOneID(t *testing.T) {
	_, path := open4K(t, t.TempDir())
	id, err := Identify(path)
	if err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(filepath.Dir(path), link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Skip("no link was made, though wine said so:", err)
	}
	if other, err := Identify(filepath.Join(link, filepath.Base(path))); err != nil || other != id {
		t.Errorf("through a linked directory: %v, %v; want %v", other, err, id)
	}
	dir, err := Identify(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	if other, err := Identify(link); err != nil || other == dir {
		t.Errorf("of the link: %v, %v; of the directory: %v", other, err, dir)
	}
}

func TestOpenDoesNotCreate(t *testing.T) {
	path := filepath.Join(t.TempDir(), "test.qshm")
	for _, flag := range []int{os.O_RDONLY, os.O_RDWR} {
		_, err := Open(path, flag)
		wantPathError(t, err, path, fs.ErrNotExist)
	}
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the file was created")
	}
}

func TestRemoveAsideLeavesOtherFilesAlone(t *testing.T) {
	path := emptyFile(t)
	if err := RemoveAside(filepath.Dir(path)); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
	if err := RemoveAside(filepath.Join(filepath.Dir(path), "missing")); err != nil {
		t.Errorf("without a store: %v", err)
	}
}
