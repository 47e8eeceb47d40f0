package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/exit"
	"qshm/shm"
)

// How the program ends: what the help says of its exit codes, and the line that says
// what went wrong and what to do.

// What the help says of the exit codes that several commands have.
const (
	exitNotExist   = "      3  the key has no segment"
	exitPermission = "      4  the store or the segment is not accessible to this user"
	exitNoSpace    = "      5  the store is full, or a limit is reached"
	exitCannotRun  = "    126  the command cannot be run\n    127  there is no such command"
	exitRun        = exitCannotRun + "\n      N  any other: the exit code of the command"
)

// withHelp completes a command's help: its examples, and the exit codes that not
// every command has. The flags keep the order in which they were defined.
func withHelp(cmd *cobra.Command, examples string, exits ...string) *cobra.Command {
	cmd.Flags().SortFlags = false
	cmd.Example = examples
	lines := []string{"      0  done", "      1  failed, for a reason that has no code of its own", "      2  wrong usage"}
	if len(exits) > 0 && strings.HasPrefix(exits[0], "      1  ") { // the command says more about it
		lines[1], exits = exits[0], exits[1:]
	}
	lines = append(lines, exits...)
	lines = append(lines, "  128+N  ended by signal N: 130 by Ctrl-C, 141 if nothing reads the output")
	cmd.Annotations = map[string]string{"exits": strings.Join(lines, "\n")}
	return cmd
}

// A usageError refers to the help.
type usageError struct {
	err  error
	path string // of the command whose help to read
}

func (e usageError) Error() string { return fmt.Sprintf("%v; see %s --help", e.err, e.path) }

func (e usageError) Unwrap() error { return e.err }

// usage returns an error that refers to the help of cmd.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...), cmd.CommandPath()}
}

// explain turns an error into a line for people and an exit code.
func explain(ctx context.Context, err error) (line string, code int) {
	var (
		wrong usageError
		coded exit.Error
		sig   signalError
		of    *shm.Error
	)
	switch {
	case errors.As(err, &coded):
		return coded.Line, coded.Code
	case errors.As(err, &wrong):
		return err.Error(), exit.Usage
	case errors.Is(err, syscall.EPIPE):
		return "nothing reads the output any more (broken pipe)", exit.BrokenPipe
	case errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &sig):
		return "", exit.Signal + int(sig.sig)
	case errors.Is(err, shm.ErrNotExist) && errors.As(err, &of) && of.Key != "" && of.Op != "grow":
		return fmt.Sprintf("there is no segment %q in %s; \"demo ls\" lists those there are", of.Key, storePath()), exit.NotExist
	}
	line = strings.TrimPrefix(err.Error(), "shm: ")
	for _, kind := range []struct {
		err  error
		code int
	}{
		{fs.ErrNotExist, exit.NotExist}, {fs.ErrPermission, exit.Permission}, {shm.ErrNoSpace, exit.NoSpace},
		{shm.ErrKey, exit.Usage}, {shm.ErrBusy, exit.Busy},
	} {
		if errors.Is(err, kind.err) {
			return line, kind.code
		}
	}
	return line, exit.Failed
}
