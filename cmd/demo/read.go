package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// stretch is the part of a segment that --offset and --length name.
type stretch struct {
	offset, length units.Size
}

func (s *stretch) flags(cmd *cobra.Command, length string) {
	s.length = -1
	cmd.Flags().Var(&s.offset, "offset", "begin SIZE bytes after the start")
	cmd.Flags().Var(&s.length, "length", length)
}

// of returns the offset and the length in a segment of size bytes.
func (s *stretch) of(size int) (off, n int64, err error) {
	off, n = int64(s.offset), int64(s.length)
	if off > int64(size) {
		return 0, 0, exit.Errorf(exit.Usage, "--offset %d is beyond the end: the segment has %s", off, units.Count(size, "byte"))
	}
	if n < 0 {
		n = int64(size) - off
	}
	if n > int64(size)-off {
		return 0, 0, exit.Errorf(exit.Usage, "--length %d reaches beyond the end: from offset %d on, the segment has %s", n, off, units.Count(int64(size)-off, "byte"))
	}
	return off, n, nil
}

func newRead() *cobra.Command {
	var r reading
	cmd := keyCommand("read", "Print the bytes of a segment", func(cmd *cobra.Command, key string) (err error) {
		if err := exclude(cmd, "hex", "text"); err != nil {
			return err
		}
		if r.seg, err = shm.Attach(key, storeOptions(shm.ReadOnly())...); err != nil {
			return err
		}
		defer r.seg.Close()
		r.out = cmd.OutOrStdout()
		return r.run(cmd.Context())
	})
	r.part.flags(cmd, "print SIZE bytes (default all there are)")
	cmd.Flags().BoolVarP(&r.follow, "follow", "f", false, "print again whenever the bytes have changed")
	cmd.Flags().BoolVar(&r.hex, "hex", false, "print a table of hexadecimal digits")
	cmd.Flags().BoolVar(&r.text, "text", false, "end before the first zero byte, and end the line")
	return withHelp(cmd)
}

// reading is a run of demo read.
type reading struct {
	seg               *shm.Segment
	out               io.Writer
	part              stretch
	hex, text, follow bool
	printed           []byte
}

func (r *reading) run(ctx context.Context) error {
	for {
		version := r.seg.Version()
		if err := r.print(); err != nil || !r.follow {
			return err
		}
		if err := r.wait(ctx, version); err != nil {
			return err
		}
		if !r.follow {
			return nil
		}
	}
}

// print prints the bytes, unless they are the same as before.
func (r *reading) print() error {
	off, n, err := r.part.of(r.seg.Size()) // another process may have grown the segment
	if err != nil {
		return err
	}
	data := make([]byte, n)
	_, err = r.seg.ReadAt(data, off)
	abandoned := errors.Is(err, shm.ErrAbandoned)
	if err != nil && !abandoned && !errors.Is(err, io.EOF) {
		return err
	}
	if r.printed == nil || !bytes.Equal(data, r.printed) {
		r.printed = data
		if _, err := r.out.Write(r.show(data, off)); err != nil {
			return err
		}
	}
	if abandoned && !r.follow {
		return exit.Errorf(exit.Abandoned, "the last writer died while it held the lock: these bytes may be half-written")
	}
	return nil
}

// show returns data, which begin at offset off, in the form that was asked for.
func (r *reading) show(data []byte, off int64) []byte {
	switch {
	case r.hex:
		text := hexTable(data, off)
		if r.follow {
			text += "\n"
		}
		return []byte(text)
	case r.text:
		if end := bytes.IndexByte(data, 0); end >= 0 {
			data = data[:end]
		}
		if !bytes.HasSuffix(data, []byte("\n")) {
			data = append(data[:len(data):len(data)], '\n')
		}
	}
	return data
}

// wait returns when the segment has changed. It ends following when the segment will
// not change any more, because no other process can write.
func (r *reading) wait(ctx context.Context, since uint32) error {
	for {
		second, cancel := context.WithTimeout(ctx, time.Second)
		_, err := r.seg.Wait(second, since)
		cancel()
		if err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		info, err := r.seg.Info()
		if err != nil {
			return err
		}
		if info.Status == shm.StatusRemoved && info.Attached == 1 {
			r.follow = false
			return nil
		}
	}
}

const hexRow = 16

// hexTable shows bytes as hexdump -C does, with an asterisk for repeated rows.
func hexTable(data []byte, off int64) string {
	var b bytes.Buffer
	for i := 0; i < len(data); i += hexRow {
		row := data[i:min(i+hexRow, len(data))]
		if i > 0 && i+hexRow < len(data) && bytes.Equal(row, data[i-hexRow:i]) {
			if !bytes.HasSuffix(b.Bytes(), []byte("*\n")) {
				b.WriteString("*\n")
			}
			continue
		}
		fmt.Fprintf(&b, "%08x%s", off+int64(i), hex.Dump(row)[8:])
	}
	fmt.Fprintf(&b, "%08x\n", off+int64(len(data)))
	return b.String()
}
