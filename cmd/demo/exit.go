package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"qshm/shm"
)

// How the program ends: its exit codes, and the line that says what went wrong and
// what to do.

const (
	codeOK         = 0
	codeFailed     = 1
	codeUsage      = 2
	codeNotExist   = 3
	codePermission = 4
	codeNoSpace    = 5
	codeAbandoned  = 6
	codeBusy       = 75
	codeCannotRun  = 126
	codeNoCommand  = 127
	codeBrokenPipe = 128 + int(syscall.SIGPIPE)
	codeSignal     = 128
)

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

// A codeError is an error with an exit code of its own. Its line may be empty.
type codeError struct {
	code int
	line string
}

func (e codeError) Error() string { return e.line }

// explain turns an error into a line for people and an exit code.
func explain(ctx context.Context, err error) (line string, code int) {
	var (
		usage usageError
		coded codeError
		sig   signalError
		of    *shm.Error
	)
	switch {
	case errors.As(err, &coded):
		return coded.line, coded.code
	case errors.As(err, &usage):
		return err.Error(), codeUsage
	case errors.Is(err, syscall.EPIPE):
		return "nothing reads the output any more (broken pipe)", codeBrokenPipe
	case errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &sig):
		return "", codeSignal + int(sig.sig)
	case errors.Is(err, shm.ErrNotExist) && errors.As(err, &of) && of.Key != "" && of.Op != "grow":
		return fmt.Sprintf("there is no segment %q in %s; \"demo ls\" lists those there are", of.Key, storePath()), codeNotExist
	}
	line = strings.TrimPrefix(err.Error(), "shm: ")
	for _, kind := range []struct {
		err  error
		code int
	}{
		{fs.ErrNotExist, codeNotExist}, {fs.ErrPermission, codePermission}, {shm.ErrNoSpace, codeNoSpace},
		{shm.ErrKey, codeUsage}, {shm.ErrBusy, codeBusy},
	} {
		if errors.Is(err, kind.err) {
			return line, kind.code
		}
	}
	return line, codeFailed
}
