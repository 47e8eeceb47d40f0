package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"qshm/shm"
)

const lockHelp = `Run a command while holding the lock of a segment, as flock(1) does for a file.

If nobody has a segment of that key, one is created, and is gone again with the
last who used it. The lock is free when the command ends; and also when this
process is killed: then, on Linux, the command is asked to end (SIGTERM).

If whoever held the lock before died while holding it, a line says so, and the
command finds QSHM_ABANDONED=1 in its environment: what the lock guards may be
half-done.

The exit code is the command's. If the lock was not free in time it is 75, or what
--busy-code says; then the command was not run.

  demo lock backup --timeout 5s -- rsync -a here/ there/`

func newLock() *cobra.Command {
	var (
		timeout  time.Duration
		busyCode int
	)
	cmd := &cobra.Command{
		Use:                   "lock KEY [--timeout D] -- COMMAND [ARG...]",
		DisableFlagsInUseLine: true,
		Short:                 "Run a command while holding a segment's lock",
		Long:                  lockHelp,
		ValidArgsFunction:     completeKeyAndCommand,
		Args:                  keyAndCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			bounded := cmd.Flags().Changed("timeout")
			if timeout < 0 {
				return usageError{fmt.Errorf("--timeout %v: want a time of zero or more", timeout), cmd.CommandPath()}
			}
			if busyCode < 0 || busyCode > 255 {
				return usageError{fmt.Errorf("--busy-code %d: want 0 to 255", busyCode), cmd.CommandPath()}
			}
			seg, _, err := shm.Open(args[0], 1, append(storeOptions(), shm.WithContext(cmd.Context()))...)
			if err != nil {
				return err
			}
			defer seg.Close()
			if err := lockIn(cmd.Context(), seg, timeout, bounded); err != nil {
				if errors.Is(err, context.DeadlineExceeded) {
					return codeError{busyCode, fmt.Sprintf("the lock of %q was not free within %v%s", args[0], timeout, heldBy(seg))}
				}
				return err
			}
			var env []string
			if seg.Abandoned() {
				fmt.Fprintf(cmd.ErrOrStderr(), "demo: whoever held the lock of %q before died while holding it\n", args[0])
				env = append(env, "QSHM_ABANDONED=1")
			}
			err = runCommand(args[1], args[2:], env)
			if unlocked := seg.Unlock(); err == nil {
				err = unlocked
			}
			return err
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "give up after a `TIME` such as 500ms or 10s; 0s only tries (default wait for ever)")
	cmd.Flags().Lookup("timeout").DefValue = "0s" // which the help does not show
	cmd.Flags().IntVar(&busyCode, "busy-code", codeBusy, "the exit `CODE` after giving up")
	return cmd
}

func lockIn(ctx context.Context, seg *shm.Segment, timeout time.Duration, bounded bool) error {
	if bounded && timeout == 0 {
		ok, err := seg.TryLock()
		if err == nil && !ok {
			err = context.DeadlineExceeded
		}
		return err
	}
	if bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, timeout)
		defer cancel()
	}
	return seg.LockContext(ctx)
}

// heldBy names who holds the lock, if anybody does.
func heldBy(seg *shm.Segment) string {
	info, err := seg.Info()
	if err != nil || info.Owner == nil {
		return ""
	}
	if info.Owner.PID == os.Getpid() {
		return ": held by a process of the same number in another container"
	}
	return fmt.Sprintf(": process %d holds it", info.Owner.PID)
}
