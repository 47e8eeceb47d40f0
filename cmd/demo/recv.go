package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os/exec"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/process"
	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
	"qshm/shm/stream"
)

// receiving is a run of demo recv.
type receiving struct {
	*transfer
	cmd                        *cobra.Command
	group                      string
	latest, fromOldest, framed bool
	count                      int
	timeout                    units.Duration
	command                    []string
	failed                     int
}

func newRecv() *cobra.Command {
	var r receiving
	size := units.Size(defaultRing)
	args := func(cmd *cobra.Command, args []string) error {
		if cmd.ArgsLenAtDash() < 0 {
			return oneKey(cmd, args)
		}
		return keyAndCommand(cmd, args)
	}
	cmd := runningCommand("recv KEY [flags] [-- COMMAND [ARG...]]", "Receive what other processes send", args, func(cmd *cobra.Command, key string, command []string) error {
		r.cmd, r.command = cmd, command
		switch flags := cmd.Flags(); {
		case flags.Changed("count") && r.count < 1:
			return usage(cmd, "--count %d: want a number of messages", r.count)
		case flags.Changed("group") && r.group == "":
			return usage(cmd, "--group: want a name")
		case r.framed && len(r.command) > 0:
			return usage(cmd, "--framed is for the output: a COMMAND gets the bytes of one message")
		}
		if err := exclude(cmd, "latest", "group"); err != nil {
			return err
		}
		if err := checkRing(cmd, size); err != nil {
			return err
		}
		if len(r.command) > 0 {
			if _, err := exec.LookPath(r.command[0]); err != nil {
				return process.CannotRun(r.command[0], err)
			}
		}
		return r.run(key, int(size))
	})
	flags := cmd.Flags()
	flags.StringVarP(&r.group, "group", "g", "", "share the messages with the other runs of the group `NAME`")
	flags.BoolVar(&r.latest, "latest", false, "only the newest message each time")
	flags.BoolVar(&r.fromOldest, "from-oldest", false, "begin with the oldest message that is in the ring")
	flags.IntVarP(&r.count, "count", "n", 0, "end after `N` messages")
	flags.VarP(&r.timeout, "timeout", "w", "give up if there is no message for TIME")
	flags.BoolVar(&r.framed, "framed", false, "print the length of each message, and then its bytes")
	flags.VarP(&size, "size", "s", "size of the ring if this run creates it")
	return withHelp(cmd)
}

func (r *receiving) run(key string, size int) error {
	ctx := r.cmd.Context()
	var opts []stream.Option
	if r.group != "" {
		opts = append(opts, stream.Group(r.group))
	}
	if r.latest {
		opts = append(opts, stream.Latest())
	}
	if r.fromOldest {
		opts = append(opts, stream.FromOldest())
	}
	s, err := openStream(r.cmd, key, size)
	if err != nil {
		return err
	}
	verb := "received"
	if terminal.Is(r.cmd.OutOrStdout()) {
		verb = "" // the messages show how far it is
	}
	r.transfer = newTransfer(r.cmd, s, verb, false)
	defer r.end()
	sub, err := s.Subscribe(opts...)
	if err == nil {
		err = r.receive(ctx, sub)
	}
	if errors.Is(err, errUndone) {
		// This process ends without closing, as if it were killed, so that another
		// member gets the message; if there is none, the segment must not stay.
		if info, err := shm.Stat(key, storeOptions()...); err == nil && info.Attached > 1 {
			return ctx.Err()
		}
		err = ctx.Err()
	}
	if closed := s.Close(); err == nil {
		err = closed
	}
	if err == nil && r.failed > 0 {
		err = exit.Errorf(exit.Failed, "%d of %s failed", r.failed, units.Count(r.messages.Load(), "command"))
	}
	return err
}

// errUndone: a signal has ended the command for a message.
var errUndone = errors.New("interrupted")

// receive handles the messages, until there are no more.
func (r *receiving) receive(ctx context.Context, sub *stream.Subscription) error {
	now, cancel := context.WithCancel(ctx)
	cancel() // so that Next does not wait
	out := bufio.NewWriterSize(r.cmd.OutOrStdout(), 64<<10)
	for r.count == 0 || r.messages.Load() < int64(r.count) {
		message, err := sub.Next(now)
		if errors.Is(err, context.Canceled) {
			if err := out.Flush(); err != nil {
				return err
			}
			message, err = r.next(ctx, sub)
		}
		switch {
		case errors.Is(err, io.EOF):
			return out.Flush()
		case errors.Is(err, stream.ErrWriterDied):
			err = exit.Errorf(exit.Abandoned, "a sender was killed; what it had sent before was received")
		}
		if err == nil {
			err = r.handle(ctx, out, message, sub.Redelivered())
		}
		if err != nil {
			return errors.Join(err, out.Flush())
		}
		r.add(len(message))
	}
	return out.Flush()
}

// next waits for a message, as long as --timeout says.
func (r *receiving) next(ctx context.Context, sub *stream.Subscription) ([]byte, error) {
	if !r.cmd.Flags().Changed("timeout") {
		return sub.Next(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, time.Duration(r.timeout))
	defer cancel()
	message, err := sub.Next(bounded)
	if errors.Is(err, context.DeadlineExceeded) {
		err = exit.Errorf(exit.Busy, "there was no message within %v", time.Duration(r.timeout))
	}
	return message, err
}

// interrupted reports whether a signal ends this process. If one has ended its command,
// the signal may reach this process a little later.
func interrupted(ctx context.Context, err error) bool {
	var code exit.Error
	if errors.As(err, &code) && code.Code > exit.Signal {
		return pause(ctx, 200*time.Millisecond) != nil
	}
	return ctx.Err() != nil
}

// handle prints a message, or runs the command with it.
func (r *receiving) handle(ctx context.Context, out *bufio.Writer, message []byte, again bool) error {
	if len(r.command) > 0 {
		var env []string
		if again {
			env = append(env, "QSHM_REDELIVERED=1")
		}
		err := runCommand(r.command, env, bytes.NewReader(message))
		if err != nil && r.group != "" && interrupted(ctx, err) {
			return errUndone
		}
		if err != nil {
			r.failed++
			say(r.cmd, "message %d: %s: %v", r.messages.Load()+1, r.command[0], err)
		}
		return nil
	}
	if again {
		say(r.cmd, "message %d was given to another process before, which was killed", r.messages.Load()+1)
	}
	if r.framed {
		var length [4]byte
		binary.BigEndian.PutUint32(length[:], uint32(len(message)))
		out.Write(length[:])
	} else {
		_, _, message = unpack(message)
	}
	if _, err := out.Write(message); err != nil || r.group == "" {
		return err
	}
	return out.Flush() // before the message counts as done
}
