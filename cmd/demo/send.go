package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// defaultRing is the size of the ring of send and recv.
const defaultRing = 1 << 20

func newSend() *cobra.Command {
	var (
		framed, noWait bool
		size           = units.Size(defaultRing)
	)
	cmd := keyCommand("send", "Send lines or messages to other processes", func(cmd *cobra.Command, key string) error {
		if err := checkRing(cmd, size); err != nil {
			return err
		}
		s, err := openStream(cmd, key, int(size))
		if err != nil {
			return err
		}
		defer s.Close()
		t := newTransfer(cmd, s, "sent", !noWait)
		defer t.end()
		err = interruptible(cmd.Context(), func() error {
			return t.sendInput(cmd.Context(), framed, noWait)
		})
		if err != nil || !noWait {
			return err
		}
		if info, err := shm.Stat(key, storeOptions()...); err == nil && info.Attached == 1 && t.messages.Load() > 0 {
			say(cmd, "no other process uses %q, so the messages are destroyed now", key)
		}
		return nil
	})
	cmd.Flags().BoolVar(&framed, "framed", false, "the input is messages with a length before each")
	cmd.Flags().BoolVar(&noWait, "no-wait", false, "do not wait for the first reader, nor for a worker if all have died")
	cmd.Flags().VarP(&size, "size", "s", "size of the ring if this run creates it")
	return withHelp(cmd)
}

// sendInput sends standard input.
func (t *transfer) sendInput(ctx context.Context, framed, noWait bool) error {
	if !noWait {
		if err := t.awaitReader(ctx); err != nil {
			return err
		}
	}
	in := bufio.NewScanner(t.cmd.InOrStdin())
	in.Buffer(make([]byte, 64<<10), t.MaxMessage()+1+4)
	in.Split(splitLine)
	if framed {
		in.Split(t.splitFrame)
	}
	for in.Scan() {
		if err := t.send(ctx, in.Bytes()); err != nil {
			return err
		}
	}
	err := in.Err()
	if errors.Is(err, bufio.ErrTooLong) {
		err = t.tooLong()
	}
	if err != nil {
		return fmt.Errorf("message %d: %w", t.messages.Load()+1, err)
	}
	if err := t.Writer(ctx).Close(); err != nil {
		return err
	}
	return t.flush(ctx)
}

func (t *transfer) tooLong() error {
	return fmt.Errorf("it is too long: a ring of %s takes up to %s; see --size", units.Format(int64(t.Capacity())), units.Count(t.MaxMessage(), "byte"))
}

// splitLine finds a line, without the newline.
func splitLine(data []byte, atEOF bool) (advance int, line []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// splitFrame finds a message after its length.
func (t *transfer) splitFrame(data []byte, atEOF bool) (advance int, message []byte, err error) {
	if len(data) >= 4 {
		n := uint64(binary.BigEndian.Uint32(data))
		if n > uint64(t.MaxMessage()) {
			return 0, nil, t.tooLong()
		}
		if uint64(len(data)) >= 4+n {
			return 4 + int(n), data[4 : 4+n], nil
		}
	}
	if atEOF && len(data) > 0 {
		return 0, nil, io.ErrUnexpectedEOF
	}
	return 0, nil, nil
}
