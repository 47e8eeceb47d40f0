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
	head := bytes.Repeat([]byte("h"), slotsOff)
	must(file.Write(bytes.Repeat([]byte("h"), minHeader)))(t)
	const first, second = minHeader + 3<<20 + 5, 100
	for off, length := range map[int64]int64{0: first, first: second} {
		if err := writeZeros(file, off, length); err != nil {
			t.Fatal(err)
		}
	}
	content := must(os.ReadFile(path))(t)
	if len(content) != first+second || !bytes.HasPrefix(content, head) || len(bytes.Trim(content[slotsOff:], "\x00")) != 0 {
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

// What a person gets to see of a file that may not be opened.
func TestStrangersFileIsDescribed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "name"), make([]byte, 77), 0o640); err != nil {
		t.Fatal(err)
	}
	info := stranger(dir, "name")
	if info.Name != "name" || info.Path != filepath.Join(dir, "name") || info.Size != 77 || info.Perm != 0o640 ||
		int(info.UID) != os.Geteuid() || info.Created.IsZero() || info.Status != StatusUnknown {
		t.Errorf("%+v", info)
	}
	if info := stranger(dir, "gone"); info.Name != "gone" || info.Size != 0 {
		t.Errorf("%+v", info)
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

func TestStatusesHaveNames(t *testing.T) {
	for status, want := range map[Status]string{
		StatusUnknown: "unknown", StatusLive: "live", StatusDead: "dead", StatusRemoved: "removed", 99: "unknown",
	} {
		if got := status.String(); got != want {
			t.Errorf("%d is %q, want %q", int(status), got, want)
		}
	}
}

func TestChangesOfAnAttachmentThatHasEnded(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	detach(t, seg)
	rounds := 0
	for _, err := range seg.Changes(t.Context()) {
		wantError(t, err, "wait", key, ErrDetached)
		rounds++
	}
	if rounds != 1 {
		t.Errorf("%d rounds, want one for the error", rounds)
	}
}

func TestNoAttachmentHasTheNumberOfNone(t *testing.T) {
	if attachmentID(0, 0) == 0 {
		t.Error("0 says that there is none")
	}
}
