package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"
)

// Running another program, for lock, single and recv.

// keyAndCommand checks arguments of the form KEY -- COMMAND ARG...
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

// runCommand runs a program to its end with the output of this process, and with its
// input unless stdin is another, and passes signals on. It returns a codeError with the
// program's exit code, or 128 and the signal that ended the program.
func runCommand(name string, args, env []string, stdin io.Reader) error {
	cmd := exec.Command(name, args...)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stdin = stdin
	err := runToEnd(cmd, func(s os.Signal) bool {
		// Ctrl-C reaches the program from the terminal, as it reaches this process.
		return s != os.Interrupt || !isTerminal(os.Stdin)
	})
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &exit):
	case cmd.Process != nil:
		return err
	default:
		return cannotRun(name, err)
	}
	if status, ok := exit.Sys().(syscall.WaitStatus); ok && status.Signaled() {
		return codeError{codeSignal + int(status.Signal()), ""}
	}
	return codeError{exit.ExitCode(), ""}
}

// cannotRun explains why a program cannot be started.
func cannotRun(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return codeError{codeNoCommand, fmt.Sprintf("%s: there is no such command", name)}
	}
	return codeError{codeCannotRun, fmt.Sprintf("%s cannot be run: %v", name, errors.Unwrap(err))}
}

// runToEnd runs cmd to its end with the input and output of this process, and passes
// on the signals that pass accepts.
func runToEnd(cmd *exec.Cmd, pass func(os.Signal) bool) error {
	if cmd.Stdin == nil {
		cmd.Stdin = os.Stdin
	}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	// If this process is killed, its lock becomes free and its terminal is left
	// alone, so cmd must end. Linux sends the signal when the thread ends that
	// started cmd.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	endWithParent(cmd)

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
