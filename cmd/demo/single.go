package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"qshm/shm/single"
)

const singleHelp = `Run a command unless it is running already: one instance per key.

The first run holds the key while its command runs, passes signals on, and exits
with the command's exit code. Another run, meanwhile, does not run its command: it
says so in a line and exits with 75. An instance that was killed is replaced at
once.

With --send another run hands its COMMAND and ARGs to the running one instead, and
exits with 0 when that has taken them. The running one prints each message on a
line, its parts separated by spaces; or, with --on-message, runs a command for
each, one after the other:

  demo single editor --on-message 'xdg-open "$2"' --send -- edit a.txt
  demo single editor --send -- edit b.txt       # runs: xdg-open b.txt

The command of --on-message is run by the shell, with the COMMAND and ARGs that
were sent as "$1" "$2" and so on. On Windows it is a program that gets them as
its arguments.`

func newSingle() *cobra.Command {
	var (
		send      bool
		onMessage string
	)
	cmd := &cobra.Command{
		Use:                   "single KEY [--send] [--on-message CMD] -- COMMAND [ARG...]",
		DisableFlagsInUseLine: true,
		Short:                 "Run a command unless it is running already",
		Long:                  singleHelp,
		ValidArgsFunction:     completeCommand,
		Args:                  keyAndCommand,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, command := args[0], args[1:]
			for {
				instance, err := single.Acquire(key, storeOptions()...)
				if err == nil {
					return runInstance(cmd, instance, command, onMessage)
				}
				if !errors.Is(err, single.ErrRunning) {
					return err
				}
				if !send {
					return codeError{codeBusy, fmt.Sprintf("an instance of %q is running; --send would hand it these arguments", key)}
				}
				err = single.Send(cmd.Context(), key, packArgs(command), storeOptions()...)
				if !errors.Is(err, single.ErrNotRunning) {
					return err
				}
				// It has ended before it took the message: perhaps we are the next.
			}
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&send, "send", false, "if an instance is running, hand it COMMAND and ARGs")
	cmd.Flags().StringVar(&onMessage, "on-message", "", "as the instance, run `CMD` for each message")
	return cmd
}

// runInstance runs the command while it serves messages.
func runInstance(cmd *cobra.Command, instance *single.Instance, command []string, onMessage string) error {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		for message := range instance.Messages(ctx) {
			serve(cmd, unpackArgs(message), onMessage)
		}
	}()
	err := runCommand(command[0], command[1:], nil)
	cancel()
	<-served // what was taken is served
	if closed := instance.Close(); err == nil {
		err = closed
	}
	return err
}

// serve prints a message or runs a command for it. What goes wrong with one must
// not end the instance.
func serve(cmd *cobra.Command, args []string, onMessage string) {
	if onMessage == "" {
		io.WriteString(cmd.OutOrStdout(), strings.Join(args, " ")+"\n")
		return
	}
	name, all := "/bin/sh", append([]string{"-c", onMessage, "demo"}, args...)
	if runtime.GOOS == "windows" {
		name, all = onMessage, args
	}
	run := exec.Command(name, all...)
	run.Stdout, run.Stderr = os.Stdout, os.Stderr
	if err := run.Run(); err != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "demo: --on-message: %v\n", err)
	}
}

// A message is each argument with a zero byte after it, which no argument can
// hold.
func packArgs(args []string) []byte {
	return []byte(strings.Join(args, "\x00") + "\x00")
}

func unpackArgs(message []byte) []string {
	return strings.Split(strings.TrimSuffix(string(message), "\x00"), "\x00")
}
