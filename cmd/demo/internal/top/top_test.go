package top

import (
	"strings"
	"testing"

	"qshm/cmd/demo/internal/layout"
	"qshm/cmd/demo/internal/segments"
	"qshm/shm"
)

// Questions fit 80 columns, whatever the segments are.
func TestQuestionsFit(t *testing.T) {
	for want, info := range map[string]shm.Info{
		"remove short? 1 attachment (y/n)": {Key: "short", Size: 1, Status: shm.StatusLive, Attached: 1},
		"remove \"long long long lo…? 65535 attachments, locked by process 4194304 (y/n)": {
			Key: strings.Repeat("long ", 50), Status: shm.StatusLive, Attached: 65535, Owner: &shm.Attachment{PID: 4194304, ID: 1}},
		"remove the dead segment 日本語日本語日本語日本語日…? no process uses it (y/n)": {Key: strings.Repeat("日本語", 20), Status: shm.StatusDead},
		"remove the dead segment -? no process uses it (y/n)":              {Status: shm.StatusDead},
	} {
		got := question(info)
		if got != want {
			t.Errorf("the question is %q, want %q", got, want)
		}
		if layout.Width(got) > segments.LineWidth-1 {
			t.Errorf("%d columns: %s", layout.Width(got), got)
		}
	}
}
