package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"qshm/shm"
)

const rootHelp = `Memory shared between processes by key.

Run it twice, in two terminals:

  demo            the first run creates a segment of shared memory; type lines
  demo            every further run attaches, and shows each line as it comes

What the first run has typed stands in memory that both processes see; nothing
is sent. The segment is gone with the last process that detaches, or dies.

It works piped as well. In a script, say which is which, since either may come
first: --read waits for a writer, --readers 1 for one reader:

  seq 1000 | demo --key numbers --readers 1 &
  demo --key numbers --read > copy

The other commands look at segments, and at how they work: try "demo tour".`

const rootFlags = `A run ends with the end of its input, with Ctrl-C, or, if it reads, when the
writer has gone, also if that was killed. If the writer has gone while others
are still reading, the next run goes on in its place.

`

// store is the flag --store.
var store string

// storeOptions are what finds the store that the flags name.
func storeOptions() []shm.Option {
	if store == "" {
		return nil
	}
	return []shm.Option{shm.Dir(store)}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "demo",
		Short:         "Memory shared between processes by key",
		Long:          rootHelp + "\n\n" + rootFlags + exitCodes,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	share := addShare(root)
	root.RunE = share
	root.PersistentFlags().StringVar(&store, "store", "",
		"the `DIR` that the segments stand in (default $QSHM_DIR, else /dev/shm/qshm-UID, else the temp directory)")
	root.PersistentFlags().SortFlags = false
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err, cmd.CommandPath()} })
	root.AddCommand(newTour(), newTourPeer(), newEdit(), newView(), newLs(), newInfo(), newRead(), newWrite(), newLock(), newSingle(), newTop(), newBench(), newBenchPeer(), newRm())
	root.SetHelpCommand(&cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Say more about a command",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("unknown command %q", args[len(args)-1]), "demo"}
			}
			about.InitDefaultHelpFlag()
			return about.Help()
		},
	})
	root.SuggestionsMinimumDistance = 2
	root.RegisterFlagCompletionFunc("key", completeKeys)
	root.SetUsageTemplate(usageTemplate)
	root.Args = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return nil
		}
		err := fmt.Errorf("unknown command %q", args[0])
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			err = fmt.Errorf("%w, perhaps %q", err, near[0])
		}
		return usageError{err, "demo"}
	}
	return root
}

// oneKey wants exactly the key that a command is about.
func oneKey(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usageError{errors.New("name the KEY of a segment"), cmd.CommandPath()}
	case len(args) > 1:
		return usageError{fmt.Errorf("one KEY is wanted, but got %q; put a key with spaces in quotes", args), cmd.CommandPath()}
	}
	return nil
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("%s takes no arguments, but got %q", cmd.Name(), args), cmd.CommandPath()}
	}
	return nil
}

const usageTemplate = `Usage:
  {{if .Runnable}}{{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}{{if .Runnable}}
  {{end}}{{.CommandPath}} COMMAND [flags]

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if or .HasAvailableInheritedFlags .HasAvailableLocalFlags}}

Flags:
{{.Flags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}
`
