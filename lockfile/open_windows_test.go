package lockfile

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/windows"
)

func irregular(t *testing.T) map[string]string {
	return map[string]string{"directory": t.TempDir()}
}

// Of many processes that remove one file, one renames it. The others must not wait for
// processes that use its successor.
func TestSetAsideLeavesASuccessorInUseAlone(t *testing.T) {
	dir := t.TempDir()
	file, path := open4K(t, dir)
	info, err := file.Stat()
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
		t.Errorf("a file that has been renamed: %v", err)
	}
	if now, err := os.Lstat(path); err != nil {
		t.Error(err)
	} else if os.SameFile(now, info) {
		t.Error("the successor is taken for the file before it")
	}
}

func mapFile(t *testing.T, file *os.File) {
	t.Helper()
	section, err := windows.CreateFileMapping(windows.Handle(file.Fd()), nil, windows.PAGE_READWRITE, 0, 0, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { windows.CloseHandle(section) })
	view, err := windows.MapViewOfFile(section, windows.FILE_MAP_WRITE, 0, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { windows.UnmapViewOfFile(view) })
}

func TestSetAsideRenamesAMappedFile(t *testing.T) {
	dir := t.TempDir()
	file, path := open4K(t, dir)
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	mapFile(t, file)
	if err := setAside(path, filepath.Join(dir, "aside"), info); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil {
		t.Error("it still has its name")
	}
}

func TestMappedFileIsIdentified(t *testing.T) {
	file, path := open4K(t, t.TempDir())
	mapFile(t, file)
	_, id, err := Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if same, err := Identify(path); err != nil || same != id {
		t.Errorf("%v, %v; want %v", same, err, id)
	}
}

func TestEmptyFileIsMarkedBeforeItIsRemoved(t *testing.T) {
	path := emptyFile(t)
	f := lock(t, path)
	defer f.Unlock()
	if err := markRemoved(path); err != nil {
		t.Fatalf("while the file is locked: %v", err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 2 {
		t.Errorf("%v, %v: want two bytes", info, err)
	}
}

// A shared lock that another handle keeps is no holder, and is in the way of a claim.
func TestSharedLockIsNoHolder(t *testing.T) {
	path := emptyFile(t)
	slots := openSlots(t, path, RecordLocks)
	reader, err := Open(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if err := windows.LockFileEx(windows.Handle(reader.Fd()), windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 2*testSlots, 0, overlapped(0)); err != nil {
		t.Fatal(err)
	}
	if slots.Held(1) || slots.OthersHold(all) {
		t.Error("a shared lock is taken for a holder")
	}
	if ok, err := slots.Claim(1); ok || err != nil {
		t.Errorf("Claim: %v, %v; want false", ok, err)
	}
	if err := windows.UnlockFileEx(windows.Handle(reader.Fd()), 0, 2*testSlots, 0, overlapped(0)); err != nil {
		t.Fatal(err)
	}
	claim(t, slots, 1)
}
