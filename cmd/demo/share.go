package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
	"qshm/shm/stream"
)

// The program run twice: what is typed in one run shows in the others.

// addShare makes the root command share text.
func addShare(root *cobra.Command) {
	size := units.Size(64 << 10)
	s := sharing{cmd: root}
	flags := root.Flags()
	flags.StringVarP(&s.key, "key", "k", "demo", "meet the other runs under `KEY`")
	flags.VarP(&size, "size", "s", "size of the ring if this run creates it: 4096, 64KiB, 1M")
	flags.BoolVarP(&s.onlyRead, "read", "r", false, "only read, and wait for a writer if there is none yet")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkRing(cmd, size); err != nil {
			return err
		}
		s.writes = !s.onlyRead
		s.types = s.writes && terminal.Is(cmd.InOrStdin())
		return s.run(cmd.Context(), int(size))
	}
}

// sharing is one run. It reads, or writes, or at a terminal both.
type sharing struct {
	cmd      *cobra.Command
	key      string
	self     string // tells this run from others, see header
	onlyRead bool
	writes   bool
	types    bool // writes what a user types, and reads
	*stream.Stream
}

// say reports on standard error; standard output is for the text.
func (s *sharing) say(format string, args ...any) { say(s.cmd, format, args...) }

func (s *sharing) run(ctx context.Context, size int) (err error) {
	s.Stream, err = openStream(s.cmd, s.key, size)
	if errors.Is(err, stream.ErrNotStream) {
		return fmt.Errorf("%q has other contents; name another key with --key", s.key)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	s.self = fmt.Sprintf("%d.%016x", os.Getpid(), s.ID())
	info, err := shm.Stat(s.key, storeOptions()...)
	if err != nil {
		return err
	}
	var sub *stream.Subscription
	if s.types || !s.writes {
		if sub, err = s.Subscribe(stream.FromOldest()); err != nil {
			return err
		}
	}
	// Which of several runs that start at once has created the segment, none of them
	// knows.
	doing := "showing what the others write"
	switch {
	case s.types:
		doing = "type lines; Ctrl-D ends"
	case s.writes:
		doing = "sharing the input"
	case info.Attached == 1:
		doing = "waiting for a writer"
	}
	s.say("attached to %q, %s, %d attached; %s", s.key, units.Format(int64(s.Capacity())), info.Attached, doing)
	switch {
	case s.types:
		err = s.talk(ctx, sub)
	case s.writes:
		err = interruptible(ctx, func() error { return s.write(ctx) })
	default:
		err = s.read(ctx, sub)
	}
	return s.leave(err)
}

// leave detaches and says what became of the segment.
func (s *sharing) leave(err error) error {
	if closed := s.Close(); closed != nil && err == nil {
		err = closed
	}
	info, missing := shm.Stat(s.key, storeOptions()...)
	switch {
	// If several processes detach at once, each of them may get here.
	case errors.Is(missing, shm.ErrNotExist) || missing == nil && info.Status != shm.StatusLive:
		s.say("detached, the last process; the segment is destroyed")
	case missing == nil:
		s.say("detached; the segment stays for %s", units.Count(info.Attached, "attachment"))
	}
	return err
}

// talk writes what is typed and shows what others write, until the input ends.
func (s *sharing) talk(ctx context.Context, sub *stream.Subscription) error {
	if err := s.Send(ctx, []byte(s.header(joined))); err != nil {
		return err
	}
	defer func() {
		soon, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		s.Send(soon, []byte(s.header(left))) // if there is no room for it, nobody learns
	}()
	typing, stop := context.WithCancel(ctx)
	defer stop()
	typed := make(chan error, 1)
	go func() {
		defer stop()
		typed <- s.write(ctx)
	}()
	err := s.show(typing, sub)
	if typing.Err() != nil && ctx.Err() == nil {
		return <-typed // the end of the input
	}
	return err
}

// write shares the input, until it ends.
func (s *sharing) write(ctx context.Context) error {
	t := newTransfer(s.cmd, s.Stream, "", false)
	defer t.end()
	head := s.header("")
	piece := make([]byte, min(16<<10, s.MaxMessage()))
	text := piece[copy(piece, head):]
	for waited := false; ; {
		n, err := s.cmd.InOrStdin().Read(text)
		if n > 0 && !waited && !s.types { // not for an empty input
			if err := t.awaitReader(ctx); err != nil {
				return err
			}
			waited = true
		}
		if n > 0 {
			if err := t.send(ctx, piece[:len(head)+n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) && s.types {
			return nil
		}
		if errors.Is(err, io.EOF) {
			return s.Writer(ctx).Close() // readers learn it even if there was no text
		}
		if err != nil {
			return fmt.Errorf("reading the input: %w", err)
		}
	}
}

// read shows what others write, until the last writer has ended.
func (s *sharing) read(ctx context.Context, sub *stream.Subscription) error {
	err := s.show(ctx, sub)
	switch {
	case errors.Is(err, io.EOF):
		s.say("the last writer has ended")
		return nil
	case errors.Is(err, stream.ErrWriterDied):
		s.say("the writer was killed; what it had shared is complete")
		return nil
	}
	return err
}

// show writes the texts of other runs to the output.
func (s *sharing) show(ctx context.Context, sub *stream.Subscription) error {
	names := terminal.Names{Out: s.cmd.OutOrStdout()}
	for {
		message, err := sub.Next(ctx)
		if err != nil {
			return err
		}
		from, sign, text := unpack(message)
		pid, _, _ := strings.Cut(from, ".")
		if pid == "" {
			pid = "?" // from demo send, or another program
		}
		if names.Joins(from); sign == left {
			names.Leaves(from)
		}
		if from == s.self {
			continue
		}
		if s.types && sign != "" {
			names.Break()
			s.say("%s has %s", pid, map[string]string{joined: "joined", left: "left"}[sign])
		}
		if err := names.Write(from, pid, text); err != nil {
			return err
		}
	}
}

// Each message of a run begins with a header, which names the run: its process number,
// and the ID of its attachment, since processes in different containers may have the same
// number.
const (
	joined = "+"
	left   = "-"
)

func (s *sharing) header(sign string) string { return "\x01" + s.self + sign + "\x02" }

var headers = regexp.MustCompile(`^\x01([0-9]+\.[0-9a-f]{16})([+-]?)\x02`)

// unpack takes a message apart. One without a header is a line, without the newline.
func unpack(message []byte) (from, sign string, text []byte) {
	if len(message) > 0 && message[0] == '\x01' {
		if parts := headers.FindSubmatch(message); parts != nil {
			return string(parts[1]), string(parts[2]), message[len(parts[0]):]
		}
	}
	if bytes.HasSuffix(message, []byte("\n")) {
		return "", "", message
	}
	return "", "", append(message[:len(message):len(message)], '\n')
}
