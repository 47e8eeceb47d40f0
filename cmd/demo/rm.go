package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

const rmHelp = `Remove segments, as ipcrm does for System V memory.

A segment in use is removed only with --force. Its key is free at once. The
processes that are attached keep the memory and the lock until they detach, but
no other process finds them any more.

--dead removes what crashes have left: the segments that no live process is
attached to. It does not wait. It is never necessary, because a run that creates
or attaches removes a dead segment of its key first.`

const rmExamples = `  demo rm frames --force
  demo rm --dead`

func newRm() *cobra.Command {
	var dead, force bool
	cmd := &cobra.Command{
		Use:               "rm KEY...",
		Short:             "Remove segments",
		Long:              rmHelp,
		ValidArgsFunction: completeKeys,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case dead && len(args) > 0:
				return usageError{errors.New("name keys, or give --dead, not both"), cmd.CommandPath()}
			case !dead && len(args) == 0:
				return usageError{errors.New("name the KEYs to remove, or give --dead"), cmd.CommandPath()}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, keys []string) error {
			if dead {
				return removeDead(cmd)
			}
			return removeKeys(cmd, keys, force)
		},
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "remove segments in use, too")
	cmd.Flags().BoolVar(&dead, "dead", false, "remove all segments that no live process is attached to")
	return withHelp(cmd, rmExamples, exitNotExist, exitPermission, "     75  a segment is in use; --force removes it")
}

// removeKeys removes as many segments as possible. It reports every error but the
// last, which it returns.
func removeKeys(cmd *cobra.Command, keys []string, force bool) error {
	var failed error
	for _, key := range keys {
		done, err := removeKey(key, force)
		if err == nil {
			if _, err := fmt.Fprintln(cmd.OutOrStdout(), done); err != nil {
				return err
			}
			continue
		}
		if failed != nil {
			line, _ := explain(cmd.Context(), failed)
			fmt.Fprintln(cmd.ErrOrStderr(), "demo: "+line)
		}
		failed = err
	}
	return failed
}

// removeKey removes one segment, and says what it did.
func removeKey(key string, force bool) (done string, err error) {
	info, err := shm.Stat(key, storeOptions()...)
	if err == nil && info.Attached > 0 && !force {
		return "", codeError{codeBusy, fmt.Sprintf("%q is in use: %s; --force removes it", key, inUse(info))}
	}
	if err := shm.Remove(key, storeOptions()...); err != nil {
		return "", err
	}
	done = "removed " + showKey(key, maxShownKey)
	if info.Attached > 0 {
		done += "; the memory stays for " + units.Count(info.Attached, "attachment")
	}
	return done, nil
}

// inUse says what uses a segment.
func inUse(info shm.Info) string {
	text := units.Count(info.Attached, "attachment")
	if info.Owner != nil {
		text += fmt.Sprintf(", locked by process %d", info.Owner.PID)
	}
	return text
}

func removeDead(cmd *cobra.Command) error {
	swept, err := shm.Sweep(storeOptions()...)
	if err != nil {
		return err
	}
	for _, info := range swept {
		name := showKey(info.Key, maxShownKey)
		if info.Key == "" {
			name = info.Name // its creator died before it wrote the key
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s, %s\n", name, units.Count(info.Size, "byte")); err != nil {
			return err
		}
	}
	if len(swept) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove: no segment is dead")
	}
	return err
}
