package doc

import (
	"path/filepath"
	"strings"
	"testing"

	"qshm/shm"
)

func open(t *testing.T) *shm.Segment {
	t.Helper()
	seg, _, err := shm.Open("text", MinSize, shm.Dir(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { seg.Close() })
	return seg
}

func join(t *testing.T, seg *shm.Segment, role Role) *Doc {
	t.Helper()
	d, err := Join(seg, role)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func load(t *testing.T, d *Doc) State {
	t.Helper()
	s, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A writer that dies anywhere inside a change has changed nothing.
func TestHalfAChangeIsNone(t *testing.T) {
	seg := open(t)
	d := join(t, seg, Editor)
	if _, err := d.Edit(func(string) string { return "before" }); err != nil {
		t.Fatal(err)
	}
	data := seg.Data()
	whole := append([]byte(nil), data...)
	setText(whole, strings.Repeat("after", 10))
	for end := len(data); end > offCurrent+8; end -= 7 { // all but the last step, from the end on
		copy(data[end-7:end], whole[end-7:end])
		if got := load(t, d).Text; got != "before" {
			t.Fatalf("with all but the first %d bytes of a change made, the text is %q", end, got)
		}
	}
	copy(data[offCurrent:], whole[offCurrent:offCurrent+8])
	if got := load(t, d).Text; got != strings.Repeat("after", 10) {
		t.Errorf("with all of a change made, the text is %q", got)
	}
}

// An edit sees what others have changed meanwhile.
func TestEditsAddUp(t *testing.T) {
	seg := open(t)
	a, b := join(t, seg, Editor), join(t, seg, Editor)
	for _, d := range []*Doc{a, b, a} {
		if _, err := d.Edit(func(now string) string { return now + "x" }); err != nil {
			t.Fatal(err)
		}
	}
	if got := load(t, b).Text; got != "xxx" {
		t.Errorf("the text is %q, want xxx", got)
	}
}

func TestPeersJoinAndLeave(t *testing.T) {
	seg := open(t)
	other, err := shm.Attach("text", shm.Dir(dirOf(t, seg)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a, b := join(t, seg, Editor), join(t, other, Viewer)
	if peers := load(t, a).Peers; len(peers) != 2 || peers[1].ID != b.ID() || peers[1].Role != Viewer {
		t.Fatalf("the peers are %v", peers)
	}
	if err := b.Leave(); err != nil {
		t.Fatal(err)
	}
	if peers := load(t, a).Peers; len(peers) != 1 || peers[0].ID != a.ID() {
		t.Errorf("after one has left, the peers are %v", peers)
	}
}

// What is somebody else's is left as it is.
func TestForeignSegment(t *testing.T) {
	seg := open(t)
	copy(seg.Data()[100:], "numbers")
	version := seg.Version()
	if _, err := Join(seg, Viewer); err != ErrForeign {
		t.Errorf("joining reports %v, want ErrForeign", err)
	}
	if seg.Version() != version {
		t.Error("joining has changed it")
	}
}

func dirOf(t *testing.T, seg *shm.Segment) string {
	t.Helper()
	info, err := seg.Info()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Dir(info.Path)
}
