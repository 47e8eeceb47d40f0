package main

import (
	"context"
	"embed"
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

//go:embed help
var helpTexts embed.FS

// withHelp completes a command's help with the parts of its file in help: the text, the
// exit codes that not every command has, and the examples. The flags keep the order in
// which they were defined.
func withHelp(cmd *cobra.Command) *cobra.Command {
	text, err := helpTexts.ReadFile("help/" + cmd.Name() + ".txt")
	if err != nil {
		panic(err) // there was no such file when the program was built
	}
	long, rest, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), "\n\nExit codes:\n")
	codes, examples, _ := strings.Cut(rest, "\n\nExamples:\n")
	if failed := "      1  "; !strings.HasPrefix(codes, failed) { // else the command says more about it
		codes = failed + "failed, for a reason that has no code of its own\n" + codes
	}
	failed, own, _ := strings.Cut(codes, "\n")
	cmd.Long, cmd.Example = long, examples
	cmd.Annotations = map[string]string{"exits": "      0  done\n" + failed + "\n      2  wrong usage\n" + strings.TrimLeft(own+"\n", "\n") +
		"  128+N  ended by signal N: 130 by Ctrl-C, 141 if nothing reads the output"}
	cmd.Flags().SortFlags = false
	return cmd
}

// usage returns an error that refers to the help of cmd.
func usage(cmd *cobra.Command, format string, args ...any) error {
	return exit.Errorf(exit.Usage, format+"; see %s --help", append(args, cmd.CommandPath())...)
}

// explain turns an error into a line for people and an exit code.
func explain(ctx context.Context, err error) (line string, code int) {
	var (
		coded exit.Error
		of    *shm.Error
	)
	switch {
	case errors.As(err, &coded):
		return coded.Line, coded.Code
	case errors.Is(err, syscall.EPIPE):
		return "nothing reads the output any more (broken pipe)", exit.BrokenPipe
	case errors.Is(err, context.Canceled) && errors.As(context.Cause(ctx), &coded):
		return "", coded.Code
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
