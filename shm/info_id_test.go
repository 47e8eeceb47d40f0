package shm_test

import (
	"testing"

	"qshm/shm"
)

// Who looks at a segment can tell its attachments apart, and an attachment knows
// which of them it is.
func TestAttachmentsHaveIDs(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	a, err := shm.Create("ids", 1, dir)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := shm.Attach("ids", dir)
	if err != nil {
		t.Fatal(err)
	}
	if a.ID() == 0 || a.ID() == b.ID() {
		t.Fatalf("the IDs are %x and %x, want two that differ", a.ID(), b.ID())
	}
	has := func(id uint64) bool {
		info, err := a.Info()
		if err != nil {
			t.Fatal(err)
		}
		for _, at := range info.Attachments {
			if at.ID == id {
				return true
			}
		}
		return false
	}
	id := b.ID()
	if !has(a.ID()) || !has(id) {
		t.Error("Info does not list the attachments under their IDs")
	}
	if err := b.Detach(); err != nil {
		t.Fatal(err)
	}
	if has(id) {
		t.Error("Info lists an attachment that has ended")
	}
	if b.ID() != 0 {
		t.Errorf("a detached attachment has the ID %x, want 0", b.ID())
	}
}
