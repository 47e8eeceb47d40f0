package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

func newRm() *cobra.Command {
	var dead, force bool
	cmd := &cobra.Command{
		Use:               "rm KEY...",
		Short:             "Remove segments",
		ValidArgsFunction: completeKeys,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case dead && len(args) > 0:
				return usage(cmd, "name keys, or give --dead, not both")
			case !dead && len(args) == 0:
				return usage(cmd, "name the KEYs to remove, or give --dead")
			}
			return exclude(cmd, "dead", "force")
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
	return withHelp(cmd)
}

// removeKeys removes as many segments as possible. It reports every error but the
// last, which it returns.
func removeKeys(cmd *cobra.Command, keys []string, force bool) error {
	var failed error
	for _, key := range keys {
		info, err := shm.Stat(key, storeOptions()...)
		done := ""
		switch {
		case err != nil:
		case info.Attached > 0 && !force:
			err = exit.Errorf(exit.Busy, "%q is in use: %s; --force removes it", key, segments.InUse(info))
		default:
			done, err = segments.Remove(key, info, storeOptions()...)
		}
		if err == nil {
			_, err = fmt.Fprintln(cmd.OutOrStdout(), done)
		}
		if err == nil {
			continue
		}
		if failed != nil {
			line, _ := explain(cmd.Context(), failed)
			say(cmd, "%s", line)
		}
		failed = err
	}
	return failed
}

func removeDead(cmd *cobra.Command) error {
	swept, err := shm.Sweep(storeOptions()...)
	if err != nil {
		return err
	}
	for _, info := range swept {
		name := segments.ShowKey(info.Key, segments.MaxShownKey)
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
