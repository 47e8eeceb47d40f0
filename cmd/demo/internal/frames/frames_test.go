package frames

import (
	"bytes"
	"encoding/binary"
	"regexp"
	"testing"
	"unicode/utf8"
)

func TestSize(t *testing.T) {
	for _, text := range []string{"8x8", "64x32", "1920x1080", "16384x16384"} {
		var s Size
		if err := s.Set(text); err != nil || s.String() != text {
			t.Errorf("Set(%q) makes %v, %v", text, &s, err)
		}
	}
	for _, text := range []string{"", "64", "64x", "x32", "64x32foo", "64x32x8", "64 x 32", "7x8", "8x7", "16385x8", "-64x32"} {
		var s Size
		if err := s.Set(text); err == nil {
			t.Errorf("Set(%q) makes %v, want an error", text, &s)
		}
	}
}

// The viewer takes the frames that Write has written, and refuses those that another program
// has changed.
func TestFramesAreChecked(t *testing.T) {
	want := Size{64, 32}
	frame := make([]byte, want.Length())
	want.Write(frame, 7)
	size, _, points, ok := parse(frame)
	if !ok || size != want || len(points) != 64*32 || bytes.Count(points, points[:1]) == len(points) {
		t.Fatalf("the frame is %v with %d points, %v", size, len(points), ok)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "a head too short": frame[:headSize-1], "a point too few": frame[:len(frame)-1],
	} {
		if _, _, _, ok := parse(bad); ok {
			t.Errorf("%s: it is a frame", name)
		}
	}
	for _, side := range []uint64{0, 7, 65, 1 << 14, 1 << 40, 1<<63 + 64, 1<<64 - 1} {
		binary.LittleEndian.PutUint64(frame, side)
		if _, _, _, ok := parse(frame); ok {
			t.Errorf("a frame of 64x32 that says it is %d wide is taken", side)
		}
	}
}

// The numbers fit a line of the screen.
func TestViewerCounts(t *testing.T) {
	var out bytes.Buffer
	v, size := NewViewer(&out), Size{8, 8}
	frame := make([]byte, size.Length())
	for n := range 2*maxTook + 5 {
		size.Write(frame, n)
		if err := v.Take(frame, uint64(n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := v.Take(frame[1:], 0); err != ErrForeign {
		t.Errorf("another message reports %v, want ErrForeign", err)
	}
	v.End()
	want := regexp.MustCompile(`^16389 pictures, \d+/s, half within [\d.]+ [mµn]?s, 99 % within [\d.]+ [mµn]?s, 16388 lost\n$`)
	if !want.Match(out.Bytes()) || utf8.RuneCount(out.Bytes()) > 80 {
		t.Errorf("the viewer prints %q", out.String())
	}
}
