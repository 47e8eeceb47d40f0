package alloc

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// mount returns a new file system of 1 MiB that is in memory.
func mount(t *testing.T, fsType string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a file system")
	}
	dir := t.TempDir()
	if err := unix.Mount(fsType, dir, fsType, 0, "size=1m"); err != nil {
		t.Skip("cannot mount a file system:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error("unmount:", err)
		}
	})
	return dir
}

func TestAllocateTakesMemory(t *testing.T) {
	dir := mount(t, "tmpfs")
	file := create(t, dir)
	const size = 1<<19 + 4096
	for name, f := range map[string]func(*os.File, int64, int64) error{"Allocate": Allocate, "writeZeros": writeZeros} {
		if err := file.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if err := f(file, 0, 4096); err != nil {
			t.Fatal(name, err)
		}
		if err := f(file, 4096, size-4096); err != nil {
			t.Fatal(name, err)
		}
		info, err := file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if n := info.Sys().(*syscall.Stat_t).Blocks * 512; info.Size() != size || n != size {
			t.Errorf("%s: %d bytes, %d of them allocated; want %d", name, info.Size(), n, size)
		}
		if free, total, ok := Free(dir); !ok || total != 1<<20 || free != total-size {
			t.Errorf("%s: %d of %d bytes free, %v; %d are allocated", name, free, total, ok, size)
		}
		err = f(file, size, 1<<20)
		if pathErr := (*fs.PathError)(nil); !errors.Is(err, unix.ENOSPC) || !errors.As(err, &pathErr) {
			t.Errorf("%s of more than there is: %v", name, err)
		}
	}
}

func TestZerosKeepWhatIsWritten(t *testing.T) {
	file := create(t, t.TempDir())
	want := append([]byte("written before"), make([]byte, 3<<20)...)
	if _, err := file.Write(want[:14]); err != nil {
		t.Fatal(err)
	}
	for _, length := range []int64{0, 10, 14, int64(len(want)), 20} {
		if err := writeZeros(file, 0, length); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes, want %d, equal: %v; %v", len(got), len(want), bytes.Equal(got, want), err)
	}
}

// ramfs has no limit, and statfs says zero.
func TestFileSystemWithoutASize(t *testing.T) {
	if free, total, ok := Free(mount(t, "ramfs")); ok {
		t.Errorf("ramfs: %d of %d", free, total)
	}
}
