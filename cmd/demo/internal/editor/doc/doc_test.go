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

func join(t *testing.T, seg *shm.Segment) *Doc {
	t.Helper()
	d, err := Open(seg)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func load(t *testing.T, d *Doc) (string, uint32) {
	t.Helper()
	text, version, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return text, version
}

// An editor that dies at any point of a change has changed nothing.
func TestHalfAChangeIsNone(t *testing.T) {
	seg := open(t)
	d := join(t, seg)
	if _, err := d.Edit(func(string) string { return "before" }); err != nil {
		t.Fatal(err)
	}
	data := seg.Data()
	whole := append([]byte(nil), data...)
	setText(whole, strings.Repeat("after", 10))
	for end := len(data); end > offCurrent+8; end -= 7 { // all but the last step, from the end on
		copy(data[end-7:end], whole[end-7:end])
		if got, _ := load(t, d); got != "before" {
			t.Fatalf("with all but the first %d bytes of a change made, the text is %q", end, got)
		}
	}
	copy(data[offCurrent:], whole[offCurrent:offCurrent+8])
	if got, _ := load(t, d); got != strings.Repeat("after", 10) {
		t.Errorf("with all of a change made, the text is %q", got)
	}
}

// The text can have any length, and every attachment sees it.
func TestGrowingText(t *testing.T) {
	seg := open(t)
	other, err := shm.Attach("text", shm.Dir(dirOf(t, seg)))
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	a, b := join(t, seg), join(t, other)
	for i, n := range []int{10, 1500, 1512, 1513, 5, 3500, 4000, 4001, 1, 100_000, 100_001, 0, 99_999, 200_000, 0} {
		want := strings.Repeat(string(rune('a'+i)), n)
		_, err := a.Edit(func(now string) string {
			room, err := a.MakeRoom(n)
			if err != nil || room < n {
				t.Fatalf("MakeRoom(%d) is %d, %v", n, room, err)
			}
			if got := text(seg.Data()); got != now {
				t.Fatalf("after MakeRoom(%d) there are %d bytes", n, len(got))
			}
			return want
		})
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := load(t, b); got != want {
			t.Fatalf("after the change to %d bytes there are %d bytes", n, len(got))
		}
	}
	if size := seg.Size(); size > 1<<20 {
		t.Errorf("the segment has %d bytes for a text of 200000", size)
	}
}

// The new text does not overwrite the current one, unless that has been moved because
// the segment has grown.
func FuzzSetText(f *testing.F) {
	f.Add([]byte{10, 200, 3}, uint16(4096))
	f.Fuzz(func(t *testing.T, lengths []byte, grow uint16) {
		data := make([]byte, MinSize)
		for i, length := range lengths {
			grown := i%3 == 2
			if grown {
				data = append(data, make([]byte, grow%5000)...)
			}
			next := strings.Repeat(string(rune('a'+i%26)), min(int(length)*20, capacity(len(data))))
			_, start, end := current(data)
			setText(data, next)
			if got := text(data); got != next {
				t.Fatalf("the text has %d bytes, want %d", len(got), len(next))
			}
			if _, newStart, newEnd := current(data); !grown && newStart < end && start < newEnd {
				t.Fatalf("%d bytes were written over the current text", len(next))
			}
		}
	})
}

// A segment that another program has damaged does no harm.
func FuzzDamaged(f *testing.F) {
	f.Add(uint64(0), uint64(offText+100), uint64(1<<40), uint64(1<<63), "text")
	f.Fuzz(func(t *testing.T, which, off, length, other uint64, next string) {
		data := make([]byte, MinSize)
		order.PutUint64(data[offCurrent:], which)
		for i := range uint64(2) {
			order.PutUint64(place(data, i), off+i*other)
			order.PutUint64(place(data, i)[8:], length)
		}
		text(data)
		next = next[:min(len(next), capacity(len(data)))]
		setText(data, next)
		if got := text(data); got != next {
			t.Errorf("the text is %q, want %q", got, next)
		}
	})
}

// An edit gets the text as other editors have left it.
func TestEditsAddUp(t *testing.T) {
	seg := open(t)
	a, b := join(t, seg), join(t, seg)
	for _, d := range []*Doc{a, b, a} {
		if _, err := d.Edit(func(now string) string { return now + "x" }); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := load(t, b); got != "xxx" {
		t.Errorf("the text is %q, want xxx", got)
	}
}

// A segment with other contents is left as it is.
func TestForeignSegment(t *testing.T) {
	seg := open(t)
	copy(seg.Data()[100:], "numbers")
	version := seg.Version()
	if _, err := Open(seg); err != ErrForeign {
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
