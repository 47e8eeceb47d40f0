package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/textlog"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// This file is the program run twice: the first shares what it is given, the
// others show it.

// addShare gives the root command its flags, and returns what it does.
func addShare(root *cobra.Command) func(*cobra.Command, []string) error {
	size := units.Size(64 << 10)
	var (
		key     string
		readers int
		read    bool
	)
	flags := root.Flags()
	flags.SortFlags = false
	flags.StringVarP(&key, "key", "k", "demo", "the `KEY` to meet under")
	flags.VarP(&size, "size", "s", "of the segment, if this run creates it: 4096, 64KiB, 1M")
	flags.BoolVarP(&read, "read", "r", false, "read in any case: if nobody writes yet, wait for a writer")
	flags.IntVar(&readers, "readers", 0, "if this run writes, wait for `N` readers first")
	return func(cmd *cobra.Command, _ []string) error {
		switch {
		case size < textlog.MinSize:
			return usageError{fmt.Errorf("--size %d is too small for text: at least %d", size, textlog.MinSize), "demo"}
		case size > math.MaxInt:
			return usageError{fmt.Errorf("--size %d is more than this machine can address", size), "demo"}
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

// say tells on standard error what happened; standard output is for the text.
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
		return fmt.Errorf("%q is in use for something else (%s, no shared text); name another key with --key", s.key, units.Format(int64(seg.Size())))
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
		s.say("%s; what is typed here, each further run shows; Ctrl-D ends", did)
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

// leave detaches and says what that did to the segment.
func (s *sharing) leave(err error) error {
	if detached := s.seg.Detach(); detached != nil && err == nil {
		err = detached
	}
	info, gone := shm.Stat(s.key, storeOptions()...)
	switch {
	// Several who detach at once may all come here.
	case errors.Is(gone, shm.ErrNotExist) || gone == nil && info.Status != shm.StatusLive:
		s.say("detached; nobody is left: the segment is destroyed")
	case gone == nil:
		s.say("detached; the segment is left to %d other%s", info.Attached, plural(info.Attached))
	}
	return err
}

func plural(n int) string {
	if n == 1 {
		return ""
	}
	return "s"
}

// write shares the lines of the input, until its end or the context's.
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

// awaitReaders waits until as many others are attached as --readers says. Each
// changes the segment when it joins, which wakes us.
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

// read shows the text until the writer has gone.
func (s *sharing) read(ctx context.Context) error {
	out := s.cmd.OutOrStdout()
	for {
		text, lost, err := s.log.Next(ctx)
		if lost > 0 {
			s.say("%d bytes are missing here: they were overwritten before this run came to read them", lost)
		}
		switch {
		case errors.Is(err, io.EOF):
			s.say("the writer has ended")
			return nil
		case errors.Is(err, textlog.ErrKilled):
			s.say("the writer died without a word; what it had shared is complete")
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
