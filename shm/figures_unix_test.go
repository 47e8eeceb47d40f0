//go:build unix

package shm

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Where the system cannot allocate, creation writes zeros: all of them, and not
// over the header.
func TestAllocatingByWriting(t *testing.T) {
	path := filepath.Join(dirAt(t, "/dev/shm"), "file")
	file := must(os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600))(t)
	defer file.Close()
	head := bytes.Repeat([]byte("h"), minHeader)
	must(file.Write(head))(t)
	const first, second = minHeader + 3<<20 + 5, 100
	for off, length := range map[int64]int64{0: first, first: second} {
		if err := writeZeros(file, off, length); err != nil {
			t.Fatal(err)
		}
	}
	content := must(os.ReadFile(path))(t)
	if len(content) != first+second || !bytes.HasPrefix(content, head) || len(bytes.Trim(content[minHeader:], "\x00")) != 0 {
		t.Errorf("%d bytes, want %d: the header, and zeros", len(content), first+second)
	}
	stat := must(file.Stat())(t).Sys().(*syscall.Stat_t)
	if stat.Blocks*512 < first+second {
		t.Errorf("%d bytes are allocated, want %d", stat.Blocks*512, first+second)
	}
	file.Close()
	if err := writeZeros(file, 0, first); err == nil {
		t.Error("no error from a file that is closed")
	}
}

func TestNoSpaceWhereTheFiguresAreMissing(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "gone")
	err := noSpace(syscall.ENOSPC, dir, 12345)
	if !errors.Is(err, ErrNoSpace) || !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), "12345") || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	if err := noSpace(syscall.EIO, dir, 1); err != syscall.EIO {
		t.Errorf("%v: is about something else", err)
	}
}
