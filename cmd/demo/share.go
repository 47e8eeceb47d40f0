package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/textlog"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// The program run twice: the first run shares its input, the others show it.

// addShare makes the root command share text.
func addShare(root *cobra.Command) {
	size := units.Size(64 << 10)
	var (
		key     string
		readers int
		read    bool
	)
	flags := root.Flags()
	flags.StringVarP(&key, "key", "k", "demo", "meet the other runs under `KEY`")
	flags.VarP(&size, "size", "s", "size of the segment if this run creates it: 4096, 64KiB, 1M")
	flags.BoolVarP(&read, "read", "r", false, "read, and wait for a writer if there is none yet")
	flags.IntVar(&readers, "readers", 0, "if this run writes, wait for `N` readers first")
	root.RunE = func(cmd *cobra.Command, _ []string) error {
		switch {
		case size < textlog.MinSize:
			return usageError{fmt.Errorf("--size %d is too small for text: want at least %d", size, textlog.MinSize), "demo"}
		case readers < 0:
			return usageError{fmt.Errorf("--readers %d: want a number of processes", readers), "demo"}
		case readers > 0 && read:
			return usageError{errors.New("--read and --readers exclude each other: one reads, the other writes"), "demo"}
		}
		s := sharing{cmd: cmd, key: key, readers: readers, onlyRead: read}
		return s.run(cmd.Context(), int(size))
	}
}

// sharing is one run.
type sharing struct {
	cmd      *cobra.Command
	key      string
	readers  int
	onlyRead bool
	seg      *shm.Segment
	log      *textlog.Log
}

// say reports on standard error; standard output is for the text.
func (s *sharing) say(format string, args ...any) {
	fmt.Fprintf(s.cmd.ErrOrStderr(), "demo: "+format+"\n", args...)
}

func (s *sharing) run(ctx context.Context, size int) error {
	seg, created, err := shm.Open(s.key, size, append(storeOptions(), shm.WithContext(ctx))...)
	if err != nil {
		return err
	}
	defer seg.Close()
	s.seg = seg
	s.log, err = textlog.Join(seg, !s.onlyRead)
	if errors.Is(err, textlog.ErrForeign) {
		return fmt.Errorf("%q has other contents (%s, no shared text); name another key with --key", s.key, units.Format(int64(seg.Size())))
	}
	if err != nil {
		return err
	}
	did := "attached to"
	if created {
		did = "created"
	}
	info, err := seg.Info()
	if err != nil {
		return err
	}
	did = fmt.Sprintf("%s %q, %s, %d attached", did, s.key, units.Format(info.Size), info.Attached)
	if s.log.Writer() {
		s.say("%s; further runs show what is typed here; Ctrl-D ends", did)
		err = s.write(ctx)
	} else {
		doing := "showing what the writer shares"
		if created {
			doing = "waiting for a writer"
		}
		s.say("%s; %s", did, doing)
		err = s.read(ctx)
	}
	if ended := s.log.End(); err == nil {
		err = ended
	}
	return s.leave(err)
}

// leave detaches and says what became of the segment.
func (s *sharing) leave(err error) error {
	if detached := s.seg.Detach(); detached != nil && err == nil {
		err = detached
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

// write shares the lines of the input, until the input or the context ends.
func (s *sharing) write(ctx context.Context) error {
	if err := s.awaitReaders(ctx); err != nil {
		return err
	}
	type piece struct {
		text []byte
		err  error
	}
	pieces := make(chan piece)
	go func() { // a read cannot be cancelled; it ends with the process
		in := bufio.NewReader(s.cmd.InOrStdin())
		for {
			text, err := in.ReadSlice('\n')
			if errors.Is(err, bufio.ErrBufferFull) {
				err = nil // a long line comes in pieces
			}
			select {
			case pieces <- piece{append([]byte(nil), text...), err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	}()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case p := <-pieces:
			if err := s.log.Append(ctx, p.text); err != nil {
				return err
			}
			if errors.Is(p.err, io.EOF) {
				return nil
			}
			if p.err != nil {
				return fmt.Errorf("reading the input: %w", p.err)
			}
		}
	}
}

// awaitReaders waits until as many readers are attached as --readers says. Each
// reader changes the segment when it joins, which ends the Wait.
func (s *sharing) awaitReaders(ctx context.Context) error {
	for {
		since := s.seg.Version()
		info, err := s.seg.Info()
		if err != nil || info.Attached > s.readers {
			return err
		}
		if _, err := s.seg.Wait(ctx, since); err != nil {
			return err
		}
	}
}

// read shows the text until the writer has ended.
func (s *sharing) read(ctx context.Context) error {
	out := s.cmd.OutOrStdout()
	for {
		text, lost, err := s.log.Next(ctx)
		if lost > 0 {
			s.say("%s missing here: this run was too slow, and the writer has overwritten them", units.Count(int64(lost), "byte"))
		}
		switch {
		case errors.Is(err, io.EOF):
			s.say("the writer has ended")
			return nil
		case errors.Is(err, textlog.ErrKilled):
			s.say("the writer was killed; what it had shared is complete")
			return nil
		case err != nil:
			return err
		}
		if _, err := out.Write(text); err != nil {
			return err
		}
	}
}

// pause waits for a while, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
