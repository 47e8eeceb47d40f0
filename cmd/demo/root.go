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
		Version:       version(),
		Args:          noCommand,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	withHelp(root)
	addShare(root)
	root.Flags().Bool("version", false, "print the version")
	root.PersistentFlags().SortFlags = false
	root.PersistentFlags().StringVar(&store, "store", "",
		"use the store in `DIR` (default $QSHM_DIR, else /dev/shm/qshm-UID, else in the temp directory)")
	root.PersistentFlags().BoolP("help", "h", false, "print this help")
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usage(cmd, "%v", err) })
	root.AddCommand(newTour(), newSend(), newRecv(), newFrames(), newEdit(), newView(), newLs(), newInfo(), newRead(), newWrite(), newLock(), newSingle(), newTop(), newBench(), newPeer(), newRm())
	root.SetHelpCommand(newHelp())
	root.SetUsageTemplate(usageTemplate)
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SuggestionsMinimumDistance = 2
	root.RegisterFlagCompletionFunc("key", completeKeys)
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
		RunE: func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage(cmd.Root(), "unknown command %q", args[len(args)-1])
			}
			return about.Help()
		},
	}
	return withHelp(cmd)
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
