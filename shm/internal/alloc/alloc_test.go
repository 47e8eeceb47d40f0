package alloc

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
)

func create(t *testing.T, dir string) *os.File {
	t.Helper()
	file, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { file.Close() })
	return file
}

func TestAllocateKeepsWhatIsWritten(t *testing.T) {
	file := create(t, t.TempDir())
	want := []byte("written before")
	if _, err := file.Write(want); err != nil {
		t.Fatal(err)
	}
	for _, end := range []int64{int64(len(want)), 4096, 4096 + 5000, 1000} {
		if err := Allocate(file, 0, end); err != nil {
			t.Fatal(err)
		}
		if n := int64(len(want)); end > n {
			want = append(want, make([]byte, end-n)...)
		}
		got, err := os.ReadFile(file.Name())
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("up to %d: the file has %d bytes, want %d; equal: %v; %v", end, len(got), len(want), bytes.Equal(got, want), err)
		}
	}
}

func TestAllocateFrom(t *testing.T) {
	file := create(t, t.TempDir())
	if err := Allocate(file, 3<<20, 1); err != nil {
		t.Fatal(err)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 3<<20+1 {
		t.Errorf("the file has %d bytes, want %d; %v", info.Size(), 3<<20+1, err)
	}
}

func TestFree(t *testing.T) {
	dir := t.TempDir()
	for name, f := range map[string]func(string) (int64, int64, bool){"Free": Free, "Available": Available} {
		free, total, ok := f(dir)
		if ok && (free < 0 || free > total || total == 0) {
			t.Errorf("%s: %d of %d", name, free, total)
		}
		if free, total, ok := f(filepath.Join(dir, "missing")); ok {
			t.Errorf("%s of a directory that does not exist: %d of %d", name, free, total)
		}
	}
}
