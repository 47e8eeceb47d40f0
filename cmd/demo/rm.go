package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"qshm/shm"
)

const rmHelp = `Remove segments, as ipcrm does for System V memory.

The key is free at once. Processes that are attached keep the memory, and the
lock, until they detach: nothing is taken from under them.

--dead removes what crashes have left: segments that no living process is
attached to. It harms nobody, and waits for nobody. There is no need for it;
whoever creates or attaches next clears away what is in the way.`

func newRm() *cobra.Command {
	var dead bool
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
			return removeKeys(cmd, keys)
		},
	}
	cmd.Flags().BoolVar(&dead, "dead", false, "remove all that no process uses any more")
	return cmd
}

// removeKeys removes as many as it can.
func removeKeys(cmd *cobra.Command, keys []string) error {
	var failed error
	for _, key := range keys {
		info, _ := shm.Stat(key, storeOptions()...)
		if err := shm.Remove(key, storeOptions()...); err != nil {
			if failed != nil { // one line each; the last is the caller's to print
				line, _ := explain(cmd.Context(), failed)
				fmt.Fprintln(cmd.ErrOrStderr(), "demo: "+line)
			}
			failed = err
			continue
		}
		kept := ""
		if info.Attached > 0 {
			kept = fmt.Sprintf("; %d attached keep the memory until they detach", info.Attached)
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s%s\n", showKey(key), kept); err != nil {
			return err
		}
	}
	return failed
}

func removeDead(cmd *cobra.Command) error {
	swept, err := shm.Sweep(storeOptions()...)
	if err != nil {
		return err
	}
	for _, info := range swept {
		name := showKey(info.Key)
		if info.Key == "" {
			name = info.Name // its creator died before it had written the key
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "removed %s, %d bytes\n", name, info.Size); err != nil {
			return err
		}
	}
	if len(swept) == 0 {
		_, err = fmt.Fprintln(cmd.OutOrStdout(), "nothing to remove: no segment is dead")
	}
	return err
}
