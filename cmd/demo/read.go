package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

const readHelp = `Print the bytes of a segment, as they were at one moment.

Reading takes no lock, unless a writer is faster than the copy several times, and
changes nothing.

--follow prints them again whenever they have changed, woken by the change. It
ends with Ctrl-C, or when the segment was removed and nobody else is attached.`

// stretch is the part of a segment that --offset and --length name.
type stretch struct {
	offset, length units.Size
}

func (s *stretch) flags(cmd *cobra.Command, length string) {
	s.length = -1
	cmd.Flags().SortFlags = false
	cmd.Flags().Var(&s.offset, "offset", "where to begin, in bytes from the start")
	cmd.Flags().Var(&s.length, "length", length)
	cmd.Flags().Lookup("length").DefValue = ""
	cmd.Flags().Lookup("offset").DefValue = ""
}

// of returns the offset and length within a segment of size bytes.
func (s *stretch) of(size int) (off, n int64, err error) {
	off, n = int64(s.offset), int64(s.length)
	if off > int64(size) {
		return 0, 0, codeError{codeUsage, fmt.Sprintf("--offset %d lies beyond the end: the segment has %d bytes", off, size)}
	}
	if n < 0 {
		n = int64(size) - off
	}
	if n > int64(size)-off {
		return 0, 0, codeError{codeUsage, fmt.Sprintf("--length %d reaches beyond the end: from offset %d on there are %d bytes", n, off, int64(size)-off)}
	}
	return off, n, nil
}

func newRead() *cobra.Command {
	var (
		part              stretch
		follow, asHex, tx bool
	)
	cmd := &cobra.Command{
		Use:               "read KEY",
		Short:             "Print the bytes of a segment",
		Long:              readHelp,
		ValidArgsFunction: completeKey,
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if asHex && tx {
				return usageError{errors.New("--hex and --text exclude each other"), cmd.CommandPath()}
			}
			seg, err := shm.Attach(args[0], append(storeOptions(), shm.ReadOnly)...)
			if err != nil {
				return err
			}
			defer seg.Close()
			r := reading{seg: seg, out: cmd.OutOrStdout(), hex: asHex, text: tx, follow: follow}
			if r.off, r.n, err = part.of(seg.Size()); err != nil {
				return err
			}
			return r.run(cmd.Context())
		},
	}
	part.flags(cmd, "how many bytes (default all there are)")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "print again whenever the bytes have changed")
	cmd.Flags().BoolVar(&asHex, "hex", false, "print a table of hexadecimal digits")
	cmd.Flags().BoolVar(&tx, "text", false, "end before the first zero byte, and end the line")
	return cmd
}

type reading struct {
	seg               *shm.Segment
	out               io.Writer
	off, n            int64
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

// print prints the bytes, unless they are what was printed before.
func (r *reading) print() error {
	data := make([]byte, r.n)
	_, err := r.seg.ReadAt(data, r.off)
	abandoned := errors.Is(err, shm.ErrAbandoned)
	if err != nil && !abandoned && !errors.Is(err, io.EOF) {
		return err
	}
	if r.printed == nil || !bytes.Equal(data, r.printed) {
		r.printed = data
		if _, err := r.out.Write(r.show(data)); err != nil {
			return err
		}
	}
	if abandoned && !r.follow {
		return codeError{codeAbandoned, "the last writer died inside the lock: what was read may be half-written"}
	}
	return nil
}

func (r *reading) show(data []byte) []byte {
	switch {
	case r.hex:
		text := hexTable(data, r.off)
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

// wait returns when something has changed, or when nothing will any more: then
// there is no more to follow.
func (r *reading) wait(ctx context.Context, since uint32) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	woken := make(chan error, 1)
	go func() {
		_, err := r.seg.Wait(ctx, since)
		woken <- err
	}()
	look := time.NewTicker(time.Second)
	defer look.Stop()
	for {
		select {
		case err := <-woken:
			return err
		case <-look.C:
			info, err := r.seg.Info()
			if err == nil && info.Status == shm.StatusRemoved && info.Attached == 1 {
				r.follow = false
			}
			if err != nil || !r.follow {
				cancel()
				<-woken
				return err
			}
		}
	}
}

const hexRow = 16

// hexTable shows bytes as hexdump -C does: repeated rows are one asterisk.
func hexTable(data []byte, off int64) string {
	var b bytes.Buffer
	var before []byte
	skipping := false
	for i := 0; i < len(data); i += hexRow {
		row := data[i:min(i+hexRow, len(data))]
		if bytes.Equal(row, before) && i+hexRow < len(data) {
			if !skipping {
				b.WriteString("*\n")
			}
			skipping = true
			continue
		}
		skipping, before = false, row
		digits, chars := "", make([]byte, len(row))
		for j, c := range row {
			if j == hexRow/2 {
				digits += " "
			}
			digits += fmt.Sprintf(" %02x", c)
			if chars[j] = '.'; c >= ' ' && c <= '~' {
				chars[j] = c
			}
		}
		fmt.Fprintf(&b, "%08x %-49s  |%s|\n", off+int64(i), digits, chars)
	}
	fmt.Fprintf(&b, "%08x\n", off+int64(len(data)))
	return b.String()
}

const writeHelp = `Write standard input into a segment, under its lock.

All of it is written at once, when the input has ended; others see nothing of it
before. What does not fit is refused, and nothing is written.

A segment lives as long as somebody is attached. If nobody else is, one that
--create has made is gone when this command ends: --hold stays attached, until
Ctrl-C, so that others find it.

  echo hello | demo write greeting --create 64KiB --hold &
  demo read greeting --text`

func newWrite() *cobra.Command {
	var (
		part        stretch
		create      units.Size
		asHex, hold bool
	)
	cmd := &cobra.Command{
		Use:               "write KEY",
		Short:             "Write standard input into a segment",
		Long:              writeHelp,
		ValidArgsFunction: completeKey,
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("create") && (create < 1 || create > math.MaxInt) {
				return usageError{fmt.Errorf("--create %d: a segment has at least one byte", create), cmd.CommandPath()}
			}
			// The input first: as long as that takes, nobody has to know of us.
			input, err := readInput(cmd, asHex, int64(part.length))
			if err != nil {
				return err
			}
			seg, created, err := openToWrite(cmd, args[0], int(create))
			if err != nil {
				return err
			}
			defer seg.Close()
			off, room, err := part.of(seg.Size())
			if err != nil {
				return err
			}
			if int64(len(input)) > room {
				return fmt.Errorf("%q has %s; the input does not fit at offset %d, nothing was written", args[0], units.Format(int64(seg.Size())), off)
			}
			if _, err := seg.WriteAt(input, off); err != nil {
				return err
			}
			return afterWrite(cmd, seg, created, hold)
		},
	}
	part.flags(cmd, "take so many bytes of the input (default all, to its end)")
	cmd.Flags().Var(&create, "create", "create the segment with `SIZE` bytes, if nobody has it")
	cmd.Flags().Lookup("create").DefValue = ""
	cmd.Flags().BoolVar(&hold, "hold", false, "stay attached after writing, until Ctrl-C")
	cmd.Flags().BoolVar(&asHex, "hex", false, "the input is hexadecimal digits; white space between them does not matter")
	return cmd
}

func openToWrite(cmd *cobra.Command, key string, create int) (seg *shm.Segment, created bool, err error) {
	if create > 0 {
		return shm.Open(key, create, append(storeOptions(), shm.WithContext(cmd.Context()))...)
	}
	seg, err = shm.Attach(key, append(storeOptions(), shm.WithContext(cmd.Context()))...)
	if errors.Is(err, shm.ErrNotExist) {
		err = codeError{codeNotExist, fmt.Sprintf("there is no segment %q; --create SIZE makes one, `demo ls` shows those there are", key)}
	}
	return seg, false, err
}

// afterWrite stays if it is to, and otherwise warns if the bytes are about to go.
func afterWrite(cmd *cobra.Command, seg *shm.Segment, created, hold bool) error {
	if hold {
		fmt.Fprintf(cmd.ErrOrStderr(), "demo: written; holding %q until Ctrl-C\n", seg.Key())
		<-cmd.Context().Done()
		return nil
	}
	info, err := seg.Info()
	if err == nil && created && info.Attached == 1 {
		fmt.Fprintln(cmd.ErrOrStderr(), "demo: nobody else is attached, so the segment is gone now; --hold would keep it")
	}
	return err
}

// maxInput is what an input may have at most. A segment that is larger can be
// written in parts.
const maxInput = 1 << 30

func readInput(cmd *cobra.Command, asHex bool, length int64) ([]byte, error) {
	limit := int64(maxInput)
	if length >= 0 && !asHex {
		limit = min(limit, length)
	}
	type result struct {
		data []byte
		err  error
	}
	done := make(chan result, 1)
	go func() { // a read cannot be cancelled; it ends with the process
		data, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), limit))
		done <- result{data, err}
	}()
	var in result
	select {
	case in = <-done:
	case <-cmd.Context().Done():
		return nil, cmd.Context().Err()
	}
	if in.err != nil {
		return nil, fmt.Errorf("reading the input: %w", in.err)
	}
	if length < 0 && len(in.data) == maxInput {
		return nil, fmt.Errorf("the input is too long: write it in parts, with --offset and --length")
	}
	if asHex {
		digits := bytes.Join(bytes.Fields(in.data), nil)
		data := make([]byte, hex.DecodedLen(len(digits)))
		if _, err := hex.Decode(data, digits); err != nil {
			return nil, codeError{codeUsage, fmt.Sprintf("the input is not hexadecimal digits, two for each byte: %v", err)}
		}
		if length >= 0 && int64(len(data)) > length {
			data = data[:length]
		}
		in.data = data
	}
	if length >= 0 && int64(len(in.data)) < length {
		return nil, fmt.Errorf("the input has ended after %d of the %d bytes that --length wants; nothing was written", len(in.data), length)
	}
	return in.data, nil
}
