// Package frames makes the pictures of demo frames, and shows them.
package frames

import (
	"encoding/binary"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Size is the width and the height of a picture, as a flag WxH.
type Size struct{ Width, Height int }

const (
	minSide = 8
	maxSide = 1 << 14
)

func (s *Size) String() string { return strconv.Itoa(s.Width) + "x" + strconv.Itoa(s.Height) }

func (s *Size) Type() string { return "WxH" }

func (s *Size) Set(text string) (err error) {
	width, height, _ := strings.Cut(text, "x")
	if s.Width, err = strconv.Atoi(width); err == nil {
		s.Height, err = strconv.Atoi(height)
	}
	if err != nil || !s.valid() {
		return errors.New("want a width and a height from 8 to 16384, as 1920x1080")
	}
	return nil
}

func (s *Size) valid() bool {
	return min(s.Width, s.Height) >= minSide && max(s.Width, s.Height) <= maxSide
}

// A frame begins with a head: width, height, number, and when its writing began, in
// nanoseconds since 1970; each 8 bytes. The points follow, one byte for each.
const headSize = 64

// Length returns how many bytes a frame has.
func (s *Size) Length() int { return headSize + s.Width*s.Height }

// Write writes frame number n to b, which has the length of a frame: gradients, and a
// bar that moves.
func (s *Size) Write(b []byte, n int) {
	for i, v := range []uint64{uint64(s.Width), uint64(s.Height), uint64(n), uint64(time.Now().UnixNano())} {
		binary.LittleEndian.PutUint64(b[8*i:], v)
	}
	points, bar := b[headSize:], n*4%s.Width
	for y := range s.Height {
		row := points[y*s.Width:][:s.Width]
		for x := range row {
			shade := (x + y + n) * 510 / (s.Width + s.Height) % 510
			row[x] = byte(min(shade, 510-shade)) // up, and down again
		}
		for x := bar; x < min(bar+s.Width/16, s.Width); x++ {
			row[x] = 255
		}
	}
}

// parse takes a frame apart. It reports whether it is one.
func parse(frame []byte) (size Size, begun time.Time, points []byte, ok bool) {
	if len(frame) < headSize {
		return size, begun, nil, false
	}
	head := func(i int) int64 { return int64(binary.LittleEndian.Uint64(frame[8*i:])) }
	size = Size{int(head(0)), int(head(1))}
	return size, time.Unix(0, head(3)), frame[headSize:], size.valid() && len(frame) == size.Length()
}
