package frames

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/term"

	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
)

// ErrForeign says that a message is no frame.
var ErrForeign = errors.New("no picture of \"demo frames\"")

// A Viewer shows frames on a terminal, or at the end how many there were.
type Viewer struct {
	out    io.Writer
	screen bool // out is a terminal
	frames int
	lost   uint64
	took   []float64 // nanoseconds, of the last frames
	began  time.Time
	shown  time.Time // when the screen was drawn last
	rows   int       // of the picture on the screen
}

const (
	columns, lines = 64, 12 // of the picture on a screen; a line shows two points, one above the other
	maxTook        = 8192
)

// NewViewer makes a Viewer that prints to out.
func NewViewer(out io.Writer) *Viewer {
	return &Viewer{out: out, screen: terminal.Is(out)}
}

// hasRoom reports whether the screen has room for a picture, and the numbers below.
func (v *Viewer) hasRoom() bool {
	width, height, err := term.GetSize(int(v.out.(*os.File).Fd()))
	return err == nil && width > columns && height > lines
}

// Take takes the next frame. lost is how many were passed over so far.
func (v *Viewer) Take(frame []byte, lost uint64) error {
	size, begun, points, ok := parse(frame)
	if !ok {
		return ErrForeign
	}
	now := time.Now()
	if v.frames++; v.frames == 1 {
		v.began = now
	}
	if len(v.took) == maxTook {
		v.took = slices.Delete(v.took, 0, maxTook/2)
	}
	v.took, v.lost = append(v.took, float64(now.Sub(begun))), lost
	if !v.screen || now.Sub(v.shown) < time.Second/2 {
		return nil
	}
	v.shown = now
	var b strings.Builder
	if v.rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", v.rows)
	}
	b.WriteString("\r")
	v.rows = 0
	if v.hasRoom() {
		draw(&b, size, points)
		v.rows = lines
	}
	_, err := io.WriteString(v.out, b.String()+v.numbers()+"\x1b[J")
	return err
}

// End prints the numbers at the end, below the last picture.
func (v *Viewer) End() {
	line := v.numbers() + "\n"
	if v.screen {
		line = "\r\x1b[K" + line
	}
	io.WriteString(v.out, line)
}

// numbers says what was seen.
func (v *Viewer) numbers() string {
	rate, half, most := 0.0, 0.0, 0.0
	if v.frames > 1 {
		rate = float64(v.frames-1) / time.Since(v.began).Seconds()
	}
	if took := slices.Sorted(slices.Values(v.took)); len(took) > 0 {
		half, most = took[len(took)/2], took[(len(took)-1)*99/100]
	}
	return fmt.Sprintf("%s, %.0f/s, half within %s, 99 %% within %s, %d lost",
		units.Count(v.frames, "picture"), rate, units.Time(half), units.Time(most), v.lost)
}

// draw draws points in half blocks: the upper point in the colour of the text, the
// lower one in that of the background.
func draw(b *strings.Builder, size Size, points []byte) {
	grey := func(x, y int) int {
		return 232 + int(points[y*size.Height/(2*lines)*size.Width+x*size.Width/columns])*23/255
	}
	for y := range lines {
		for x := range columns {
			fmt.Fprintf(b, "\x1b[38;5;%d;48;5;%dm▀", grey(x, 2*y), grey(x, 2*y+1))
		}
		b.WriteString("\x1b[0m\x1b[K\r\n")
	}
}
