package main

import (
	"context"
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/editor"
	"qshm/cmd/demo/internal/editor/doc"
	"qshm/cmd/demo/internal/exit"
	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/top"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// The commands on the whole screen: edit, view and top.

func newEdit() *cobra.Command {
	cmd := keyCommand("edit", "Edit a shared text, on the whole screen", func(cmd *cobra.Command, key string) error {
		return onScreen(cmd, `use "demo write" and "demo read" in scripts`, func(ctx context.Context) error {
			seg, _, err := shm.Open(key, doc.MinSize, storeOptions()...)
			if err != nil {
				return err
			}
			defer seg.Close()
			return editor.Run(ctx, seg)
		})
	})
	return withHelp(cmd)
}

func newView() *cobra.Command {
	cmd := keyCommand("view", "Show a shared text as it is typed", func(cmd *cobra.Command, key string) error {
		return onScreen(cmd, `use "demo read KEY --follow" in scripts`, func(ctx context.Context) error {
			seg, err := shm.Attach(key, storeOptions(shm.ReadOnly())...)
			if errors.Is(err, shm.ErrNotExist) {
				return exit.Errorf(exit.NotExist, "there is no text %q in %s; start \"demo edit\" first", key, storePath())
			}
			if err != nil {
				return err
			}
			defer seg.Close()
			return editor.Run(ctx, seg)
		})
	})
	return withHelp(cmd)
}

func newTop() *cobra.Command {
	every := units.Duration(time.Second)
	cmd := plainCommand("top", "Show the segments, live, on the whole screen", func(cmd *cobra.Command) error {
		if err := checkEvery(cmd, every); err != nil {
			return err
		}
		if _, err := shm.List(storeOptions()...); err != nil { // before the screen is cleared
			return err
		}
		return onScreen(cmd, `use "demo ls --watch" or "demo ls --json"`, func(ctx context.Context) error {
			return top.Run(ctx, storePath(), time.Duration(every), storeOptions()...)
		})
	})
	cmd.Flags().Var(&every, "every", "look every TIME, at least 100ms")
	return withHelp(cmd)
}

func checkEvery(cmd *cobra.Command, every units.Duration) error {
	if time.Duration(every) < 100*time.Millisecond {
		return usage(cmd, "--every %v: want at least 100ms", time.Duration(every))
	}
	return nil
}

// onScreen runs a function that takes the whole screen, if there is a terminal. The
// terminal is left as it was, whatever happens: see terminal.Guarded.
func onScreen(cmd *cobra.Command, instead string, show func(context.Context) error) error {
	if !terminal.Is(os.Stdin) || !terminal.Is(os.Stdout) {
		return exit.Errorf(exit.Usage, "%s needs a terminal; %s", cmd.Name(), instead)
	}
	return terminal.Guarded(cmd.Context(), show, func() {
		shm.Sweep(storeOptions()...) // the child's segment, if no other process uses it
	})
}
