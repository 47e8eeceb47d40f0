package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"qshm/shm"
)

// This file is how the program ends: the exit codes, and the one line that says
// what went wrong and what to do.

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

const exitCodes = `Exit codes:
    0   done
    1   failed, for a reason that has no code of its own
    2   wrong usage: an unknown command or flag, a bad number
    3   there is no segment of that key
    4   no permission for the store or the segment
    5   out of space
    6   read, but the last writer died inside the lock: perhaps half-written
   75   busy: the lock was not free in time (lock), an instance runs (single)
  126   the command cannot be run (lock, single)
  127   there is no such command (lock, single)
  128+N ended by signal N: 130 by Ctrl-C, 141 when nobody reads the output`

// A usageError is one that the help answers.
type usageError struct {
	err  error
	path string // of the command to ask for help
}

func (e usageError) Error() string { return fmt.Sprintf("%v; see %s --help", e.err, e.path) }

func (e usageError) Unwrap() error { return e.err }

// A codeError is an error with an exit code of its own, and perhaps nothing to
// say.
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
	)
	switch {
	case errors.As(err, &coded):
		return coded.line, coded.code
	case errors.As(err, &usage):
		return err.Error(), codeUsage
	case errors.Is(err, syscall.EPIPE):
		return "nobody reads the output any more (broken pipe)", codeBrokenPipe
	case errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &sig):
		return "", codeSignal + int(sig.sig)
	}
	line = strings.TrimPrefix(err.Error(), "shm: ")
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var in *shm.Error
		if errors.As(err, &in) && in.Key != "" {
			line += "; `demo ls` shows the keys there are"
		}
		return line, codeNotExist
	case errors.Is(err, fs.ErrPermission):
		return line, codePermission
	case errors.Is(err, shm.ErrNoSpace):
		return line, codeNoSpace
	case errors.Is(err, shm.ErrKey):
		return line, codeUsage
	}
	return line, codeFailed
}
