//go:build unix

package terminal

import (
	"context"
	"io"
	"os"
	"os/exec"
	"strconv"

	"golang.org/x/term"

	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/process"
)

// Leaving the terminal as it was, even if the process that uses the whole screen is
// killed: that process is a child, and its parent, the guard, waits to clean up. If
// the guard is killed, the child ends by itself.

// guardEnv tells the child the process number of the guard.
const guardEnv = "QSHM_DEMO_GUARD"

// Guarded runs show in a child process, a second run of this program; there it calls
// show. If the child is killed, Guarded calls cleanUp.
func Guarded(ctx context.Context, show func(context.Context) error, cleanUp func()) error {
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
	err = process.Run(child, func(os.Signal) bool { return true })
	if child.ProcessState == nil {
		return err
	}
	sig, killed := process.EndedBy(child)
	if !killed {
		return err
	}
	term.Restore(fd, before)
	io.WriteString(os.Stdout, resetTerminal)
	cleanUp()
	return exit.Errorf(exit.Signal+int(sig), "ended by a signal: %v", sig)
}

// resetTerminal leaves the alternate screen, shows the cursor, and ends attributes,
// paste and mouse reports, keypad and cursor key modes.
const resetTerminal = "\x1b[?1049l\x1b[?25h\x1b[0m\x1b(B\x1b[?2004l\x1b[?1000l\x1b[?1002l\x1b[?1003l\x1b[?1006l\x1b[?1004l\x1b[?1l\x1b>\r"

// alone reports whether the guard has ended.
func alone() bool {
	parent := os.Getenv(guardEnv)
	return parent != "" && parent != strconv.Itoa(os.Getppid())
}
