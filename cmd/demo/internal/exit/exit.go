// Package exit has the exit codes of the demo, and the errors that carry one.
package exit

import (
	"fmt"
	"syscall"
)

const (
	OK         = 0
	Failed     = 1
	Usage      = 2
	NotExist   = 3
	Permission = 4
	NoSpace    = 5
	Abandoned  = 6
	Busy       = 75
	CannotRun  = 126
	NoCommand  = 127
	Signal     = 128 // plus the number of the signal
	BrokenPipe = Signal + int(syscall.SIGPIPE)
)

// An Error is an error with an exit code of its own. Its line may be empty.
type Error struct {
	Code int
	Line string
}

func (e Error) Error() string {
	if e.Line == "" {
		return fmt.Sprintf("exit code %d", e.Code)
	}
	return e.Line
}

// Errorf returns an Error.
func Errorf(code int, format string, args ...any) error {
	return Error{code, fmt.Sprintf(format, args...)}
}
