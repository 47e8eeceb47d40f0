package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// locking is a run of demo lock.
type locking struct {
	timeout  units.Duration
	bounded  bool // timeout counts
	try      bool
	busyCode int
}

func newLock() *cobra.Command {
	var l locking
	cmd := runningCommand("lock KEY [flags] -- COMMAND [ARG...]", "Run a command while holding a segment's lock", keyAndCommand, func(cmd *cobra.Command, key string, command []string) error {
		l.bounded = cmd.Flags().Changed("timeout")
		if err := exclude(cmd, "timeout", "nonblock"); err != nil {
			return err
		}
		switch {
		case cmd.Flags().Changed("busy-code") && !l.bounded && !l.try:
			return usage(cmd, "--busy-code means nothing without --timeout or --nonblock: the lock is waited for")
		case l.busyCode < 0 || l.busyCode > 255:
			return usage(cmd, "--busy-code %d: want 0 to 255", l.busyCode)
		}
		return l.run(cmd, key, command)
	})
	cmd.Flags().VarP(&l.timeout, "timeout", "w", "give up after TIME: seconds, or 500ms, 1m (default never)")
	cmd.Flags().BoolVarP(&l.try, "nonblock", "n", false, "give up at once if the lock is not free")
	cmd.Flags().IntVarP(&l.busyCode, "busy-code", "E", exit.Busy, "after giving up, exit with `CODE`")
	return withHelp(cmd)
}

func (l *locking) run(cmd *cobra.Command, key string, command []string) error {
	ctx := cmd.Context()
	if l.bounded && l.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(l.timeout))
		defer cancel()
	}
	seg, _, err := shm.Open(key, 1, storeOptions(shm.WithContext(ctx))...)
	if err == nil {
		defer seg.Close()
		err = l.lock(ctx, seg)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		within := ""
		if l.bounded {
			within = fmt.Sprintf(" within %v", time.Duration(l.timeout))
		}
		return exit.Errorf(l.busyCode, "the lock of %q was not free%s%s", key, within, heldBy(seg))
	}
	if err != nil {
		return err
	}
	var env []string
	before, replaced := seg.Replaced()
	if seg.Abandoned() || replaced && before.Abandoned {
		say(cmd, "the last process that held the lock of %q died while it held it", key)
		env = append(env, "QSHM_ABANDONED=1")
	}
	err = runCommand(command, env, nil)
	if unlocked := seg.Unlock(); err == nil {
		err = unlocked
	}
	return err
}

// lock takes the lock. It reports context.DeadlineExceeded if it gives up.
func (l *locking) lock(ctx context.Context, seg *shm.Segment) error {
	if l.try || l.bounded && l.timeout == 0 {
		ok, err := seg.TryLock()
		if err == nil && !ok {
			err = context.DeadlineExceeded
		}
		return err
	}
	return seg.LockContext(ctx)
}

// heldBy names the process that holds the lock, if there is one.
func heldBy(seg *shm.Segment) string {
	if seg == nil {
		return ""
	}
	info, err := seg.Info()
	if err != nil || info.Owner == nil {
		return ""
	}
	if info.Owner.PID == os.Getpid() {
		return ": a process with this one's number, in another container, holds it"
	}
	return fmt.Sprintf(": process %d holds it", info.Owner.PID)
}
