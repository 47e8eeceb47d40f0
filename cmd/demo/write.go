package main

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

func newWrite() *cobra.Command {
	var (
		part                  stretch
		create                units.Size
		asHex, hold, truncate bool
	)
	cmd := keyCommand("write", "Write standard input into a segment", func(cmd *cobra.Command, key string) error {
		if cmd.Flags().Changed("create") && create < 1 {
			return usage(cmd, "--create %d: a segment has at least one byte", create)
		}
		// The input first: attached meanwhile, this process would only be in the way.
		input, err := readInput(cmd, asHex, int64(part.length))
		if err != nil {
			return err
		}
		seg, created, err := openToWrite(cmd, key, int(create))
		if err != nil {
			return err
		}
		defer seg.Close()
		off, room, err := part.of(seg.Size())
		if err != nil {
			return err
		}
		if int64(len(input)) > room {
			return fmt.Errorf("%q has %s; the input does not fit at offset %d, nothing was written", key, units.Format(int64(seg.Size())), off)
		}
		err = seg.Update(func(data []byte) error {
			rest := data[int(off)+copy(data[off:], input):]
			if truncate {
				clear(rest)
			}
			return nil
		})
		if err != nil {
			return err
		}
		return afterWrite(cmd, seg, created, hold)
	})
	part.flags(cmd, "take SIZE bytes of the input (default all)")
	cmd.Flags().BoolVar(&truncate, "truncate", false, "clear what follows the written bytes, to the end of the segment")
	cmd.Flags().Var(&create, "create", "create a segment of SIZE bytes if the key has none")
	cmd.Flags().BoolVar(&hold, "hold", false, "stay attached after writing, until Ctrl-C")
	cmd.Flags().BoolVar(&asHex, "hex", false, "the input is hexadecimal digits, with or without white space")
	return withHelp(cmd)
}

func openToWrite(cmd *cobra.Command, key string, create int) (seg *shm.Segment, created bool, err error) {
	opts := storeOptions(shm.WithContext(cmd.Context()))
	if create > 0 {
		return shm.Open(key, create, opts...)
	}
	seg, err = shm.Attach(key, opts...)
	if errors.Is(err, shm.ErrNotExist) {
		err = exit.Errorf(exit.NotExist, "there is no segment %q in %s; --create SIZE makes one", key, storePath())
	}
	return seg, false, err
}

// afterWrite stays attached if hold says so. Otherwise it warns if the segment is
// about to be destroyed.
func afterWrite(cmd *cobra.Command, seg *shm.Segment, created, hold bool) error {
	if hold {
		say(cmd, "written; holding %q until Ctrl-C", seg.Key())
		<-cmd.Context().Done()
		return nil
	}
	info, err := seg.Info()
	if err == nil && created && info.Attached == 1 {
		say(cmd, "no other process is attached, so the segment is destroyed now; --hold keeps it")
	}
	return err
}

// maxInput limits the length of an input, which is kept in memory. A larger segment
// can be written in parts.
const maxInput = 1 << 30

// readInput reads standard input to its end, or length bytes of it.
func readInput(cmd *cobra.Command, asHex bool, length int64) (data []byte, err error) {
	limit := int64(maxInput)
	if length >= 0 && !asHex {
		limit = min(limit, length)
	}
	err = interruptible(cmd.Context(), func() (err error) {
		data, err = io.ReadAll(io.LimitReader(cmd.InOrStdin(), limit))
		return err
	})
	switch {
	case cmd.Context().Err() != nil:
		return nil, cmd.Context().Err()
	case err != nil:
		return nil, fmt.Errorf("reading the input: %w", err)
	case length < 0 && len(data) == maxInput:
		return nil, errors.New("the input is too long: write it in parts, with --offset and --length")
	}
	if asHex {
		if data, err = hex.DecodeString(strings.Join(strings.Fields(string(data)), "")); err != nil {
			return nil, exit.Errorf(exit.Usage, "the input is not hexadecimal digits, two for each byte: %v", err)
		}
		if length >= 0 && int64(len(data)) > length {
			data = data[:length]
		}
	}
	if length >= 0 && int64(len(data)) < length {
		return nil, fmt.Errorf("the input has %s, fewer than --length %d; nothing was written", units.Count(len(data), "byte"), length)
	}
	return data, nil
}
