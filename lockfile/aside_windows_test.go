package lockfile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

// Of many who remove one file, one renames it. The others must not be kept out by
// those who have its successor open, in the way of flock, until they report that.
func TestSetAsideLeavesASuccessorInUseAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, []byte("ours"), 0o600); err != nil {
		t.Fatal(err)
	}
	ours, err := Open(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	info, err := ours.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := setAside(path, filepath.Join(dir, "aside"), info); err != nil {
		t.Fatal(err)
	}
	successor, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer successor.Close()
	if err := setAside(path, filepath.Join(dir, "aside too"), info); err != nil {
		t.Errorf("a file that has no name any more: %v", err)
	}
	if now, err := os.Lstat(path); err != nil {
		t.Error(err)
	} else if os.SameFile(now, info) {
		t.Error("the successor is taken for the file before it")
	}
}

// A file that others have mapped loses its name all the same.
func TestSetAsideRenamesWhatIsMapped(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	section, err := windows.CreateFileMapping(windows.Handle(file.Fd()), nil, windows.PAGE_READWRITE, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.CloseHandle(section)
	view, err := windows.MapViewOfFile(section, windows.FILE_MAP_WRITE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer windows.UnmapViewOfFile(view)
	if err := setAside(path, filepath.Join(dir, "aside"), info); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("it still has its name")
	}
}
