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
	_, path, info := opened(t, dir)
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
	file, path, info := opened(t, dir)
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
