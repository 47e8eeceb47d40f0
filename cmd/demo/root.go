package main

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"

	"qshm/keymap"
	"qshm/shm"
)

const rootHelp = `Memory shared between processes by key.

Run it twice, in two terminals:

  demo            the first run creates a stream in shared memory; type lines
  demo            every further run shows them, and what is typed there as well

The text is in memory that all runs see, in a ring. It is destroyed when the
last process detaches or dies.

It works with pipes, too: a run whose input is a pipe or a file writes it,
unchanged, and with --read or the input /dev/null a run only reads. Either may
come first. A run that writes a pipe waits for one reader, with --readers N for
N readers. A run that reads begins with the oldest text in the ring. While the
ring is full of text that a reader has not read, writers wait for it.

A run ends at the end of its input or with Ctrl-C. A run that only reads ends
when the last writer has ended or was killed.

The other commands show which segments there are, and how they work: begin with
"demo tour".`

const rootExamples = `  seq 1000 | demo --key numbers &
  demo --key numbers --read > copy`

// store is the flag --store.
var store string

// storeOptions returns options, and one for the store that the flags name.
func storeOptions(opts ...shm.Option) []shm.Option {
	if store != "" {
		opts = append(opts, shm.Dir(store))
	}
	return opts
}

// storePath returns the path of the store, which need not exist.
func storePath() string {
	dir, err := keymap.Find(store)
	var in *fs.PathError
	if errors.As(err, &in) {
		return in.Path
	}
	return dir
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "demo",
		Short:         "Memory shared between processes by key",
		Long:          rootHelp,
		Version:       version(),
		Args:          noCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	withHelp(root, rootExamples, exitNotExist, exitPermission, exitNoSpace,
		"      6  a writer died: perhaps half-written (read), or before its end (recv)",
		"     75  busy: a lock (lock), an instance (single), a segment in use (rm);",
		"         no message in time (recv)",
		"    126  the command cannot be run (lock, single, recv)",
		"    127  there is no such command (lock, single, recv)")
	addShare(root)
	root.Flags().Bool("version", false, "print the version")
	root.PersistentFlags().SortFlags = false
	root.PersistentFlags().StringVar(&store, "store", "",
		"use the store in `DIR` (default $QSHM_DIR, else /dev/shm/qshm-UID, else in the temp directory)")
	root.PersistentFlags().BoolP("help", "h", false, "print this help")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{err, cmd.CommandPath()} })
	root.AddCommand(newTour(), newSend(), newRecv(), newFrames(), newEdit(), newView(), newLs(), newInfo(), newRead(), newWrite(), newLock(), newSingle(), newTop(), newBench(), newPeer(), newRm())
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.RegisterFlagCompletionFunc("key", completeKeys)
	addCompletionHelp(root)
	return root
}

// version says what the binary was built from.
func version() string {
	version := "(unknown)"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
	}
	return fmt.Sprintf("%s, %s %s/%s", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

func newHelp() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "help [COMMAND]",
		Short: "Say more about a command",
		Long:  "Print the help of a command, as the command does with --help.",
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage(cmd.Root(), "unknown command %q", args[len(args)-1])
			}
			return about.Help()
		},
	}
	return withHelp(cmd, "  demo help lock\n  demo help ls | less")
}

// noCommand refuses the arguments of the root command: they would be commands.
func noCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	perhaps := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		perhaps = fmt.Sprintf(", perhaps %q", near[0])
	}
	return usage(cmd, "unknown command %q%s", args[0], perhaps)
}

const usageTemplate = `Usage:
  {{if .Runnable}}{{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}{{if .Runnable}}
  {{end}}{{.CommandPath}} COMMAND [flags]

Commands:{{range .Commands}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding}}  {{.Short}}{{end}}{{end}}{{end}}{{if or .HasAvailableInheritedFlags .HasAvailableLocalFlags}}

Flags:
{{.Flags.FlagUsagesWrapped 80 | trimTrailingWhitespaces}}{{end}}{{with .Annotations.exits}}

Exit codes:
{{.}}{{end}}{{with .Example}}

Examples:
{{.}}{{end}}
`
