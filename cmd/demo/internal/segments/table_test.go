package segments

import (
	"strings"
	"testing"
	"time"

	"qshm/cmd/demo/internal/layout"
	"qshm/shm"
)

// A second look tells how fast a segment changes, and for how long a process has held
// its lock; and it does not compare a segment with another one of the same key.
func TestTopComparesWithBefore(t *testing.T) {
	h, now := History{}, time.Unix(1000, 0)
	look := func(info shm.Info, at time.Time) Row {
		var rows []Row
		rows, h = h.Look([]shm.Info{info}, at)
		return rows[0]
	}
	info := shm.Info{Name: "x", Version: 10, Created: now, Owner: &shm.Attachment{PID: 1, ID: 7}}
	if r := look(info, now); r.changes() != "-" || r.lock() != "1" {
		t.Errorf("at first: %s changes, lock %s", r.changes(), r.lock())
	}
	info.Version = 14
	if r := look(info, now.Add(2*time.Second)); r.changes() != "2.0" || r.lock() != "1 2s" {
		t.Errorf("then: %s changes, lock %s", r.changes(), r.lock())
	}
	info.Owner = &shm.Attachment{PID: 1, ID: 8} // another process of that number
	if r := look(info, now.Add(4*time.Second)); r.lock() != "1" {
		t.Errorf("another owner: lock %s", r.lock())
	}
	info.Created = now.Add(5 * time.Second)
	if r := look(info, now.Add(6*time.Second)); r.changes() != "-" {
		t.Errorf("another segment: %s changes", r.changes())
	}
}

// Tables fit 80 columns, whatever the segments are.
func TestTablesFit(t *testing.T) {
	columns := []Column{KeyColumn, BytesColumn, AttachedColumn, StatusColumn, KindColumn, LockColumn, OwnerColumn, PermColumn}
	rows, _ := History{}.Look([]shm.Info{
		{Key: "short", Size: 1, Status: shm.StatusLive, Attached: 1},
		{Key: strings.Repeat("long ", 50), Size: 1 << 40, Status: shm.StatusLive, Attached: 65535, Owner: &shm.Attachment{PID: 4194304, ID: 1}},
		{Key: strings.Repeat("日本語", 20), Size: 123456789, Status: shm.StatusDead, Abandoned: true},
		{Key: "line\nbreak", Status: shm.StatusUnknown},
		{Key: "", Status: shm.StatusDead},
	}, time.Now())
	for _, line := range Lines(columns, rows, LineWidth) {
		if n := layout.Width(line); n > LineWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
}
