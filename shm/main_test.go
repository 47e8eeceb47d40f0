package shm

import (
	"os"
	"path/filepath"
	"testing"
)

// dirAt makes a directory in the memory file system, where there is one.
func dirAt(t testing.TB, parent string) string {
	t.Helper()
	dir, err := os.MkdirTemp(parent, "qshm-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.Abs(dir); err != nil { // wine has a /dev/shm, on a drive
		t.Fatal(err)
	}
	return dir
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}
