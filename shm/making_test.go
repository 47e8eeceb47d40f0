package shm

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"qshm/keymap"
)

// leaveMaking leaves what a creator leaves that is killed after [write], before
// it has allocated anything, and returns the file.
func leaveMaking(t *testing.T, key string) (path string) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(keymap.EnvDir, dir)
	s, err := newShape(1<<20, 0)
	if err != nil {
		t.Fatal(err)
	}
	path = filepath.Join(dir, keymap.Name(key))
	page := s.fresh(key)
	page[0] = 0 // the byte that doors lock is not written
	if err := os.WriteFile(path, page, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestCreatorKilledBeforeAllocatingLeavesGarbage(t *testing.T) {
	t.Run("stat", func(t *testing.T) {
		leaveMaking(t, "k")
		if info, err := Stat("k"); err != nil || info.Status != StatusDead {
			t.Errorf("Stat answered %+v, %v", info, err)
		}
	})
	t.Run("attach", func(t *testing.T) {
		path := leaveMaking(t, "k")
		if _, err := Attach("k"); !errors.Is(err, ErrNotExist) {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the file is still there")
		}
	})
	t.Run("create", func(t *testing.T) {
		leaveMaking(t, "k")
		s, err := Create("k", 100)
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
	t.Run("sweep", func(t *testing.T) {
		path := leaveMaking(t, "k")
		if _, err := Sweep(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("the file is still there")
		}
	})
}

// A creator that has made the file, and has it open but not locked yet, is in
// nobody's way: on Windows it keeps the file from being removed.
func TestCreateInAnEmptyFileThatAnotherHasOpen(t *testing.T) {
	dir := t.TempDir()
	t.Setenv(keymap.EnvDir, dir)
	path := filepath.Join(dir, keymap.Name("k"))
	slow, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	s, err := Create("k", 100)
	if err != nil {
		t.Fatal(err)
	}
	slow.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the file is still there")
	}
}
