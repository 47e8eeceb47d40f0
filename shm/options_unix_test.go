//go:build unix

package shm

import (
	"io/fs"
	"os"
	"syscall"
	"testing"
)

func TestFilesAreForTheUserAlone(t *testing.T) {
	dir := store(t)
	defer syscall.Umask(syscall.Umask(0))
	create(t, key, 1)
	if info, err := os.Stat(segmentPath(dir, key)); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v, want 0600", info.Mode(), err)
	}
}

func TestPermIsAppliedInSpiteOfUmask(t *testing.T) {
	dir := store(t)
	defer syscall.Umask(syscall.Umask(0o077))
	for _, perm := range []fs.FileMode{0o600, 0o640, 0o660, 0o666, fs.ModeSetuid | 0o660} {
		seg := create(t, key, 1, Perm(perm))
		if info, err := os.Stat(segmentPath(dir, key)); err != nil || info.Mode() != perm.Perm() {
			t.Errorf("mode %v, %v, want %v", info.Mode(), err, perm.Perm())
		}
		if info := must(seg.Info())(t); info.Perm != perm.Perm() || info.UID != uint32(os.Geteuid()) {
			t.Errorf("%+v", info)
		}
		detach(t, seg)
	}
}

// allocated returns how many bytes are allocated for a file.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Sys().(*syscall.Stat_t).Blocks * 512
}

func TestMemoryIsAllocatedAtOnce(t *testing.T) {
	dir := store(t)
	create(t, key, 1<<20)
	if n := allocated(t, segmentPath(dir, key)); n < 1<<20 {
		t.Errorf("%d bytes are allocated, want all", n)
	}
}

func TestSparseIsNotAllocated(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 1<<20, Sparse())
	if n := allocated(t, segmentPath(dir, key)); n > 1<<16 {
		t.Errorf("%d bytes are allocated, want the header alone", n)
	}
	if seg.Data()[1<<20-1] = 1; seg.Size() != 1<<20 {
		t.Errorf("size %d", seg.Size())
	}
}
