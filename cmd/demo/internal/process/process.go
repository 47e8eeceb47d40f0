// Package process runs other programs to their end.
package process

import (
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"qshm/cmd/demo/internal/exit"
)

// Run runs cmd to its end, with the input of this process unless cmd has another, and
// with its output. It passes on the signals that pass accepts. It returns an exit.Error
// with cmd's exit code, or 128 and the signal that ended cmd.
func Run(cmd *exec.Cmd, pass func(os.Signal) bool) error {
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
	defer func() { signal.Stop(signals); close(signals) }()
	if err := cmd.Start(); err != nil {
		return CannotRun(cmd.Args[0], err)
	}
	go func() {
		for s := range signals {
			if pass(s) {
				cmd.Process.Signal(s)
			}
		}
	}()
	err := cmd.Wait()
	var code *exec.ExitError
	if !errors.As(err, &code) {
		return err
	}
	if sig, ended := EndedBy(cmd); ended {
		return exit.Error{Code: exit.Signal + int(sig)}
	}
	return exit.Error{Code: code.ExitCode()}
}

// EndedBy returns the signal that has ended cmd, if one has.
func EndedBy(cmd *exec.Cmd) (sig syscall.Signal, ended bool) {
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return 0, false
	}
	return status.Signal(), true
}

// CannotRun explains why a program cannot be started.
func CannotRun(name string, err error) error {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return exit.Errorf(exit.NoCommand, "%s: there is no such command", name)
	}
	return exit.Errorf(exit.CannotRun, "%s cannot be run: %v", name, errors.Unwrap(err))
}
