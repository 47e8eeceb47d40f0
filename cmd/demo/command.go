package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// This file runs another program, for lock and single.

// keyAndCommand takes KEY -- COMMAND ARG... apart.
func keyAndCommand(cmd *cobra.Command, args []string) error {
	usage := func(text string) error { return usageError{errors.New(text), cmd.CommandPath()} }
	switch dash := cmd.ArgsLenAtDash(); {
	case len(args) == 0 || dash == 0:
		return usage("name a KEY, and after -- the command to run")
	case dash < 0:
		return usage("put -- between the KEY and the command to run")
	case dash > 1:
		return usage(fmt.Sprintf("one KEY is wanted before --, but got %q", args[:dash]))
	case len(args) == 1:
		return usage("name the command to run, after --")
	}
	return nil
}

// runCommand runs a program with our input and output to its end, passing
// signals on, and returns what we shall exit with: its code, or 128 and the
// signal that ended it.
func runCommand(name string, args, env []string) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	err := runToEnd(cmd, func(s os.Signal) bool {
		// Ctrl-C reaches the command from the terminal, as it does us.
		return s != os.Interrupt || !isTerminal(os.Stdin)
	})
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
	case cmd.Process != nil:
		return err
	case errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist):
		return codeError{codeNoCommand, fmt.Sprintf("%s: there is no such command", name)}
	default:
		return codeError{codeCannotRun, fmt.Sprintf("%s: cannot be run: %v", name, errors.Unwrap(err))}
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return codeError{codeSignal + int(status.Signal()), ""}
	}
	return codeError{exit.ExitCode(), ""}
}

// runToEnd runs cmd with our input and output to its end, and passes on those
// signals that pass wants.
func runToEnd(cmd *exec.Cmd, pass func(os.Signal) bool) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	// If we are killed, a lock of ours is free, and nobody looks after the
	// terminal, so cmd must not go on. The system ties that to the thread that
	// has started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	endWithUs(cmd)

	signals := make(chan os.Signal, 16)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			select {
			case s := <-signals:
				if pass(s) {
					cmd.Process.Signal(s)
				}
			case <-ended:
				return
			}
		}
	}()
	return cmd.Wait()
}
