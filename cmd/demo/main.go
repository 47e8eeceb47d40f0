// Demo shows memory shared between processes by key, and is a tool for it: see
// demo --help.
//
// This directory has the commands, and help what their --help says. What draws on a
// terminal is in internal: editor (edit and view), top, frames, and terminal, which they
// have in common, with the guard that restores the terminal. segments has the tables of
// ls and top.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"qshm/cmd/demo/internal/exit"
)

func main() { os.Exit(run()) }

// run is main, but returns the exit code.
func run() int {
	// A write to a pipe without a reader should be an error, so that this process
	// detaches before it ends. To ignore the signal would do as well, but commands
	// that this process starts would inherit that.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)

	ctx, stop := withSignals(context.Background())
	defer stop()
	err := newRoot().ExecuteContext(ctx)
	if err == nil {
		return exit.OK
	}
	line, code := explain(ctx, err)
	if line != "" {
		fmt.Fprintln(os.Stderr, "demo: "+line)
	}
	return code
}

// withSignals returns a context that ends when a signal asks this process to end,
// with an exit.Error as its cause.
func withSignals(parent context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(parent)
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	go func() {
		if sig, ok := (<-ch).(syscall.Signal); ok {
			cancel(exit.Error{Code: exit.Signal + int(sig)})
		}
	}()
	return ctx, func() { signal.Stop(ch); cancel(nil) }
}
