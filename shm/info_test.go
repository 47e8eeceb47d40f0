package shm

import (
	"os"
	"path/filepath"
	"testing"
)

func TestInfoDescribes(t *testing.T) {
	dir := store(t)
	a := create(t, key, 100)
	attach(t, key, ReadOnly())
	lock(t, a)
	for _, info := range []Info{must(a.Info())(t), must(Stat(key))(t), must(List())(t)[0]} {
		if info.Key != key || info.Path != segmentPath(dir, key) || info.Name != filepath.Base(info.Path) || info.Size != 100 ||
			info.Created.IsZero() || info.Attached != 2 || info.Attachments[0].ReadOnly || !info.Attachments[1].ReadOnly ||
			info.Owner == nil || info.Owner.PID != os.Getpid() || info.Owner.ReadOnly || info.Owner.ID != a.ID() || info.Abandoned ||
			info.Version != 0 || info.Status != StatusLive || info.ID != a.m.shape.id {
			t.Errorf("%+v", info)
		}
	}
	unlock(t, a)
	if info := must(Stat(key))(t); info.Owner != nil || info.Version != 1 {
		t.Errorf("%+v, want no owner, and version 1", info)
	}
}

func TestListDescribesEachSegment(t *testing.T) {
	dir := store(t)
	create(t, "one", 1)
	create(t, "two", 2)
	if err := os.WriteFile(filepath.Join(dir, "notes"), []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(filepath.Join(dir, "notes"))
	sizes := map[string]int64{}
	for _, info := range must(List())(t) {
		sizes[info.Key] = info.Size
	}
	if len(sizes) != 2 || sizes["one"] != 1 || sizes["two"] != 2 {
		t.Errorf("List: %v", sizes)
	}
}

// A process that looks at a segment can tell its attachments apart, and an attachment
// knows which of them it is.
func TestAttachmentsHaveIDs(t *testing.T) {
	store(t)
	a, b := create(t, key, 1), attach(t, key)
	c := otherProcess(t, a)
	ids := []uint64{a.ID(), b.ID(), c.ID()}
	if ids[0] == 0 || ids[1] == 0 || ids[0] == ids[1] || ids[1] == ids[2] || ids[0] == ids[2] {
		t.Fatalf("the IDs are %x, want three that differ", ids)
	}
	has := func(id uint64) bool {
		for _, at := range must(a.Info())(t).Attachments {
			if at.ID == id {
				return true
			}
		}
		return false
	}
	for _, id := range ids {
		if !has(id) {
			t.Errorf("Info does not list the attachment with the ID %x", id)
		}
	}
	detach(t, b)
	if has(ids[1]) {
		t.Error("Info lists an attachment that has ended")
	}
	if b.ID() != 0 {
		t.Errorf("a detached attachment has the ID %x, want 0", b.ID())
	}
	if next := attach(t, key); next.slot != b.slot || next.ID() == ids[1] {
		t.Errorf("slot %d, ID %x, want the slot of before with another ID", next.slot, next.ID())
	}
}

func TestNoAttachmentHasTheID0(t *testing.T) {
	w := uint64(1) << slotSerial
	if id := attachmentID(1<<16|1, w, 0); id != 1 {
		t.Errorf("the ID is %d, want 1", id)
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

// What can be seen of a file that may not be opened.
func TestUnreadableFileIsDescribed(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "name"), make([]byte, 77), 0o600); err != nil {
		t.Fatal(err)
	}
	info := unreadable(dir, "name")
	if info.Name != "name" || info.Path != filepath.Join(dir, "name") || info.Size != 77 || info.Perm&0o600 != 0o600 ||
		int(info.UID) != max(os.Geteuid(), 0) || info.Created.IsZero() || info.Status != StatusUnknown {
		t.Errorf("%+v", info)
	}
	if info := unreadable(dir, "missing"); info.Name != "missing" || info.Size != 0 {
		t.Errorf("%+v", info)
	}
}
