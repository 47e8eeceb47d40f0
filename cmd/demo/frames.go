package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm/stream"
)

const framesHelp = `Hand pictures from one process to others, in place.

A run without --watch is a camera: it writes a grey test picture into the ring
--fps times a second, one byte for each point, and ends with Ctrl-C or after
--count pictures. Runs with --watch show it: how many pictures they have seen,
how long each took from the beginning of the writing until it could be read,
and how many were passed over. Any number of them, and either side may come
first.

No picture is copied by the camera. A run with --watch takes the newest picture,
a copy, and never makes the camera wait; with --all it takes each, in place.`

const framesExamples = `  demo frames camera &
  demo frames camera --watch`

// A frame begins with a head: width, height, number, and when its writing began, in
// nanoseconds since 1970; each 8 bytes. The points follow.
const (
	frameHead = 64
	maxSide   = 1 << 14
	maxTook   = 8192
)

func newFrames() *cobra.Command {
	var (
		watch, all, noPicture bool
		size                  string
		fps, count            int
	)
	cmd := &cobra.Command{
		Use:               "frames KEY",
		Short:             "Hand pictures to other processes, in place",
		Long:              framesHelp,
		ValidArgsFunction: completeKey(noFiles),
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			var width, height int
			if n, err := fmt.Sscanf(size, "%dx%d", &width, &height); n != 2 || err != nil || width < 8 || height < 8 || width > maxSide || height > maxSide {
				return usageError{fmt.Errorf("--size %s: want a width and a height from 8 to 16384, as 1920x1080", size), cmd.CommandPath()}
			}
			if fps < 1 || fps > 1000 {
				return usageError{fmt.Errorf("--fps %d: want 1 to 1000", fps), cmd.CommandPath()}
			}
			s, err := openStream(cmd.Context(), args[0], 4*(width*height+2*frameHead))
			if err != nil {
				return err
			}
			defer s.Close()
			if watch {
				v := viewing{cmd: cmd, all: all, picture: !noPicture && isTerminal(cmd.OutOrStdout())}
				return v.run(cmd.Context(), s)
			}
			return film(cmd, s, width, height, fps, count)
		},
	}
	flags := cmd.Flags()
	flags.BoolVarP(&watch, "watch", "w", false, "show the pictures of the camera")
	flags.BoolVar(&all, "all", false, "with --watch, take every picture, and make the camera wait if need be")
	flags.BoolVar(&noPicture, "no-picture", false, "with --watch, show numbers only")
	flags.StringVar(&size, "size", "1920x1080", "the size of a picture, `WxH` points")
	flags.IntVar(&fps, "fps", 60, "write `N` pictures a second")
	flags.IntVarP(&count, "count", "n", 0, "end after `N` pictures")
	return withHelp(cmd, framesExamples, exitPermission, exitNoSpace, "      6  the camera was killed (--watch)")
}

// film is the camera.
func film(cmd *cobra.Command, s *stream.Stream, width, height, fps, count int) error {
	ctx := cmd.Context()
	tick := time.NewTicker(time.Second / time.Duration(fps))
	defer tick.Stop()
	for n := 0; count == 0 || n < count; n++ {
		begun := time.Now()
		r, err := s.Reserve(ctx, frameHead+width*height)
		if err != nil {
			return err
		}
		b := r.Bytes()
		for i, v := range []uint64{uint64(width), uint64(height), uint64(n), uint64(begun.UnixNano())} {
			binary.LittleEndian.PutUint64(b[8*i:], v)
		}
		paint(b[frameHead:], width, height, n)
		if err := r.Commit(); err != nil {
			return err
		}
		if n == 0 {
			say(cmd, "filming %dx%d, %d a second; Ctrl-C ends", width, height, fps)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return s.Flush(ctx)
}

// paint draws a gradient, and a bar that moves.
func paint(points []byte, width, height, n int) {
	bar := n * 4 % width
	for y := range height {
		row := points[y*width:][:width]
		for x := range row {
			row[x] = byte((x + y + n) * 255 / (width + height))
		}
		for x := bar; x < min(bar+width/16, width); x++ {
			row[x] = 255
		}
	}
}

// viewing is a run with --watch.
type viewing struct {
	cmd          *cobra.Command
	all, picture bool
	frames       int
	took         []float64 // nanoseconds, of the last maxTook frames or so
	lost         uint64
	begun        time.Time
	rows         int // of the picture on the screen
}

func (v *viewing) run(ctx context.Context, s *stream.Stream) error {
	var opts []stream.Option
	if !v.all {
		opts = append(opts, stream.Latest())
	}
	sub, err := s.Subscribe(opts...)
	if err != nil {
		return err
	}
	say(v.cmd, "watching %q; Ctrl-C ends", s.Key())
	shown := time.Now()
	for frame, err := range sub.Messages(ctx) {
		if errors.Is(err, stream.ErrWriterDied) {
			v.show(nil)
			return codeError{codeAbandoned, "the camera was killed; its last picture is whole"}
		}
		if err != nil {
			v.show(nil)
			return err
		}
		if len(frame) < frameHead {
			return fmt.Errorf("%q has other contents; name another KEY", s.Key())
		}
		if v.frames++; v.frames == 1 {
			v.begun = time.Now()
		}
		if len(v.took) == maxTook {
			v.took = append(v.took[:0], v.took[maxTook/2:]...)
		}
		v.took = append(v.took, float64(time.Now().UnixNano()-int64(binary.LittleEndian.Uint64(frame[24:]))))
		v.lost = sub.Lost()
		if now := time.Now(); isTerminal(v.cmd.OutOrStdout()) && now.Sub(shown) >= time.Second/2 {
			shown = now
			v.show(frame)
		}
	}
	v.show(nil)
	return nil
}

// show prints what was seen, and on a terminal the picture.
func (v *viewing) show(frame []byte) {
	out := v.cmd.OutOrStdout()
	var b strings.Builder
	if v.rows > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", v.rows)
	}
	v.rows = 0
	if v.picture && frame != nil {
		v.rows = picture(&b, frame)
	}
	rate := 0.0
	if seconds := time.Since(v.begun).Seconds(); v.frames > 1 {
		rate = float64(v.frames) / seconds
	}
	took := slices.Sorted(slices.Values(v.took))
	at := func(q float64) time.Duration {
		if len(took) == 0 {
			return 0
		}
		return time.Duration(took[int(q*float64(len(took)-1))]).Round(time.Microsecond)
	}
	text := fmt.Sprintf("%s, %.0f a second, half within %v, 99 %% within %v, %d lost", units.Count(v.frames, "picture"), rate, at(0.5), at(0.99), v.lost)
	if isTerminal(out) {
		text = "\x1b[K" + text
	}
	if v.rows == 0 && isTerminal(out) {
		b.WriteString("\r")
	}
	b.WriteString(text)
	if frame == nil || v.rows > 0 {
		b.WriteString("\n")
		if v.rows > 0 {
			v.rows++
		}
	}
	io.WriteString(out, b.String())
}

// picture draws a frame in 12 rows of half blocks, two points each.
func picture(b *strings.Builder, frame []byte) (rows int) {
	const columns, lines = 64, 12
	size := [2]uint64{binary.LittleEndian.Uint64(frame), binary.LittleEndian.Uint64(frame[8:])}
	points := frame[frameHead:]
	if size[0]-1 >= maxSide || size[1]-1 >= maxSide || uint64(len(points)) < size[0]*size[1] {
		return 0
	}
	width, height := int(size[0]), int(size[1])
	grey := func(x, y int) int {
		return 232 + int(points[y*height/(2*lines)*width+x*width/columns])*23/255
	}
	for y := range lines {
		for x := range columns {
			fmt.Fprintf(b, "\x1b[38;5;%d;48;5;%dm▀", grey(x, 2*y), grey(x, 2*y+1))
		}
		b.WriteString("\x1b[0m\n")
	}
	return lines
}
