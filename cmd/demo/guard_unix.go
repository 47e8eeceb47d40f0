//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"syscall"

	"golang.org/x/term"

	"qshm/shm"
)

// Leaving the terminal as it was, even if the process that uses the whole screen is
// killed: that process is a child, and its parent, the guard, waits to clean up. If
// the guard is killed, the child ends by itself.

// guardEnv tells the child the process number of the guard.
const guardEnv = "QSHM_DEMO_GUARD"

// guarded runs show in a child process; in the child, it runs show.
func guarded(ctx context.Context, show func(context.Context) error) error {
	if os.Getenv(guardEnv) != "" {
		return show(ctx)
	}
	fd := int(os.Stdin.Fd())
	before, err := term.GetState(fd)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	child := exec.Command(self, os.Args[1:]...)
	child.Args[0] = os.Args[0]
	child.Env = append(os.Environ(), guardEnv+"="+strconv.Itoa(os.Getpid()))
	err = runToEnd(child, func(os.Signal) bool { return true })
	var exit *exec.ExitError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &exit):
		return err
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	if !ok || !status.Signaled() {
		return codeError{exit.ExitCode(), ""}
	}
	term.Restore(fd, before)
	io.WriteString(os.Stdout, resetTerminal)
	shm.Sweep(storeOptions()...) // the child's segment, if no other process uses it
	return codeError{codeSignal + int(status.Signal()), fmt.Sprintf("ended by a signal: %v", status.Signal())}
}

// resetTerminal leaves the alternate screen, shows the cursor, and ends attributes,
// paste and mouse reports, keypad and cursor key modes.
const resetTerminal = "\x1b[?1049l\x1b[?25h\x1b[0m\x1b(B\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?1l\x1b>\r"

// alone reports whether the guard has ended.
func alone() bool {
	parent := os.Getenv(guardEnv)
	return parent != "" && parent != strconv.Itoa(os.Getppid())
}
