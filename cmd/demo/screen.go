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

const editHelp = `Edit a text in shared memory, on the whole screen.

Each keystroke is shared at once: "demo view KEY" in another terminal shows it.
Several editors may be open: each keystroke changes the text as it is then, so
that no editor overwrites what another one has typed elsewhere.

The segment begins with 4 KiB and grows with the text, as far as the store has
room. It is destroyed when the last editor or viewer ends.

Keys:
  arrows, Home, End, PgUp, PgDn    move
  Backspace, Delete                delete a character
  Ctrl-K, Ctrl-U                   delete to the end, the beginning of the line
  Ctrl-Q, Ctrl-C                   quit

The lines at the bottom show the length of the text, the size of the segment,
its version, the editors and viewers, and what has just happened.`

const viewHelp = `Show a text that "demo edit KEY" edits, as it is typed.

The view follows the changes, without polling. Any number of views may be open.

Keys:
  arrows, Home, End, PgUp, PgDn    look elsewhere; End follows the changes again
  q, Ctrl-Q, Ctrl-C                quit`

const (
	editExamples = "  demo edit notes\n  demo edit notes --store /srv/shared"
	viewExamples = "  demo view notes\n  demo view notes --store /srv/shared"
)

const topHelp = `Show the segments of a store, live, on the whole screen.

CHANGES/S is how often in a second a process that may have written unlocked the
segment. LOCKED BY is the process that holds the lock, and for how long top has
seen it do so. "demo ls --help" explains the other columns.

Keys:
  Up, Down       choose a segment
  k b a c s      sort by key, bytes, attached, changes, status; again: reverse
  r              remove the chosen segment, after a question: its key is free at
                 once, and the processes that are attached keep the memory
  d              remove all dead segments
  q, Ctrl-C      quit`

const topExamples = `  demo top
  demo top --every 0.2 --store /dev/shm/shared`

func newEdit() *cobra.Command {
	cmd := keyCommand("edit", "Edit a shared text, on the whole screen", editHelp, func(cmd *cobra.Command, key string) error {
		return onScreen(cmd, `use "demo write" and "demo read" in scripts`, func(ctx context.Context) error {
			seg, _, err := shm.Open(key, doc.MinSize, storeOptions()...)
			if err != nil {
				return err
			}
			defer seg.Close()
			return editor.Run(ctx, seg, doc.Editor)
		})
	})
	return withHelp(cmd, editExamples, exitPermission, exitNoSpace)
}

func newView() *cobra.Command {
	cmd := keyCommand("view", "Show a shared text as it is typed", viewHelp, func(cmd *cobra.Command, key string) error {
		return onScreen(cmd, `use "demo read KEY --follow" in scripts`, func(ctx context.Context) error {
			seg, err := shm.Attach(key, storeOptions()...)
			if errors.Is(err, shm.ErrNotExist) {
				return exit.Errorf(exit.NotExist, "there is no text %q in %s; start \"demo edit\" first", key, storePath())
			}
			if err != nil {
				return err
			}
			defer seg.Close()
			return editor.Run(ctx, seg, doc.Viewer)
		})
	})
	return withHelp(cmd, viewExamples, exitNotExist, exitPermission)
}

func newTop() *cobra.Command {
	every := units.Duration(time.Second)
	cmd := plainCommand("top", "Show the segments, live, on the whole screen", topHelp, func(cmd *cobra.Command) error {
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
	return withHelp(cmd, topExamples, exitPermission)
}

func checkEvery(cmd *cobra.Command, every units.Duration) error {
	if time.Duration(every) < 100*time.Millisecond {
		return usage(cmd, "--every %v: want at least 100ms", &every)
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
