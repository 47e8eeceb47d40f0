package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/process"
	"qshm/cmd/demo/internal/terminal"
)

// What commands have in common: their arguments and flags, and running another program.

// keyCommand makes a command whose one argument is a key.
func keyCommand(name, short string, run func(cmd *cobra.Command, key string) error) *cobra.Command {
	return &cobra.Command{
		Use:               name + " KEY",
		Short:             short,
		ValidArgsFunction: completeKey(noFiles),
		Args:              oneKey,
		RunE:              func(cmd *cobra.Command, args []string) error { return run(cmd, args[0]) },
	}
}

// plainCommand makes a command without arguments.
func plainCommand(name, short string, run func(cmd *cobra.Command) error) *cobra.Command {
	return &cobra.Command{
		Use:               name,
		Short:             short,
		ValidArgsFunction: cobra.NoFileCompletions,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return run(cmd) },
	}
}

// runningCommand makes a command with a key and, after --, a command to run.
func runningCommand(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, key string, command []string) error) *cobra.Command {
	return &cobra.Command{
		Use:                   use,
		DisableFlagsInUseLine: true,
		Short:                 short,
		ValidArgsFunction:     completeKey(byShell),
		Args:                  args,
		RunE:                  func(cmd *cobra.Command, args []string) error { return run(cmd, args[0], args[1:]) },
	}
}

// oneKey wants exactly one argument, a key.
func oneKey(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return usage(cmd, "name the KEY of a segment")
	case len(args) > 1:
		return usage(cmd, "one KEY is wanted, but got %q; put a key with spaces in quotes", args)
	}
	return nil
}

// noArgs refuses arguments.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usage(cmd, "%s takes no arguments, but got %q", cmd.Name(), args)
	}
	return nil
}

// keyAndCommand checks arguments of the form KEY -- COMMAND ARG...
func keyAndCommand(cmd *cobra.Command, args []string) error {
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return usage(cmd, "name a KEY, and after -- the command to run")
	case dash < 0:
		return usage(cmd, "put -- between the KEY and the command to run")
	case dash > 1:
		return usage(cmd, "one KEY is wanted before --, but got %q", args[:dash])
	case len(args) == 1:
		return usage(cmd, "name the command to run, after --")
	}
	return nil
}

// exclude refuses each of the other flags if flag is given.
func exclude(cmd *cobra.Command, flag string, others ...string) error {
	for _, other := range others {
		if cmd.Flags().Changed(flag) && cmd.Flags().Changed(other) {
			return usage(cmd, "--%s and --%s exclude each other", flag, other)
		}
	}
	return nil
}

// need refuses each of the other flags unless flag is given.
func need(cmd *cobra.Command, flag string, others ...string) error {
	for _, other := range others {
		if cmd.Flags().Changed(other) && !cmd.Flags().Changed(flag) {
			return usage(cmd, "--%s means nothing without --%s", other, flag)
		}
	}
	return nil
}

// say reports on standard error.
func say(cmd *cobra.Command, format string, args ...any) {
	fmt.Fprintf(cmd.ErrOrStderr(), "demo: "+format+"\n", args...)
}

// runCommand runs a program to its end with the output of this process, and with its
// input unless stdin is another, and passes signals on. It returns an exit.Error with
// the program's exit code, or 128 and the signal that ended the program.
func runCommand(command, env []string, stdin io.Reader) error {
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	return process.Run(cmd, func(s os.Signal) bool {
		// Ctrl-C reaches the program from the terminal, as it reaches this process.
		return s != os.Interrupt || !terminal.Is(os.Stdin)
	})
}
