package main

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/shm/single"
)

func newSingle() *cobra.Command {
	var (
		send      bool
		onMessage string
	)
	cmd := runningCommand("single KEY [flags] -- COMMAND [ARG...]", "Run a command unless it is running already", keyAndCommand, func(cmd *cobra.Command, key string, command []string) error {
		for {
			instance, err := single.Acquire(key, storeOptions()...)
			if err == nil {
				return runInstance(cmd, instance, command, onMessage)
			}
			if !errors.Is(err, single.ErrRunning) {
				return err
			}
			if !send {
				return exit.Errorf(exit.Busy, "an instance of %q is running; with --send it gets these arguments", key)
			}
			err = single.Send(cmd.Context(), key, packArgs(command), storeOptions()...)
			if !errors.Is(err, single.ErrNotRunning) {
				return err
			}
			// The instance ended before it took the message: try to be the next.
		}
	})
	complete := cmd.ValidArgsFunction
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, typed string) ([]cobra.Completion, cobra.ShellCompDirective) {
		_, after := complete(cmd, args, typed) // the key has no segment of that name
		return nil, after
	}
	cmd.Flags().BoolVar(&send, "send", false, "if an instance is running, hand it COMMAND and ARGs")
	cmd.Flags().StringVar(&onMessage, "on-message", "", "as the instance, run `CMD` for each message")
	return withHelp(cmd)
}

// runInstance runs the command, and serves messages meanwhile.
func runInstance(cmd *cobra.Command, instance *single.Instance, command []string, onMessage string) error {
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan struct{})
	go func() {
		defer close(served)
		for message := range instance.Messages(ctx) {
			serve(cmd, unpackArgs(message), onMessage)
		}
	}()
	err := runCommand(command, nil, nil)
	cancel()
	<-served // the last message that was taken
	if closed := instance.Close(); err == nil {
		err = closed
	}
	return err
}

// serve prints a message or runs a command for it. An error is reported and does not
// end the instance.
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
		say(cmd, "--on-message: %v", err)
	}
}

// packArgs makes a message of arguments, with a zero byte after each: no argument
// contains one.
func packArgs(args []string) []byte {
	return []byte(strings.Join(args, "\x00") + "\x00")
}

func unpackArgs(message []byte) []string {
	return strings.Split(strings.TrimSuffix(string(message), "\x00"), "\x00")
}
