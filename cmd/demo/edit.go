package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/doc"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// This file is the commands edit and view; editor.go is what they show.

const editHelp = `Edit a text that stands in shared memory, on the whole screen.

Each keystroke is shared at once: "demo view KEY" in another terminal shows it as
it is typed. There may be several editors. Each keystroke changes the text as it
is by then, so that nobody overwrites what somebody else has typed elsewhere.

The text is gone with the last who edits or views it.

Keys:
  arrows, Home, End, PgUp, PgDn    move
  Backspace, Delete                delete a character
  Ctrl-K, Ctrl-U                   delete to the end, the beginning of the line
  Ctrl-Q, Ctrl-C                   quit

The lines at the bottom say how much text there is and can be, its version, who is
there, and what has just happened.`

const viewHelp = `Show a text that somebody edits with "demo edit KEY", as it is typed.

The view follows what changes. Any number of views may be open; each is woken by
the change.

Keys:
  arrows, Home, End, PgUp, PgDn    look elsewhere; End goes back to following
  q, Ctrl-Q, Ctrl-C                quit`

func newEdit() *cobra.Command {
	size := units.Size(64 << 10)
	cmd := &cobra.Command{
		Use:               "edit KEY",
		Short:             "Edit a shared text, on the whole screen",
		Long:              editHelp,
		ValidArgsFunction: completeKey,
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			if size < doc.MinSize || size > math.MaxInt {
				return usageError{fmt.Errorf("--size %d: want at least %d", size, doc.MinSize), cmd.CommandPath()}
			}
			return onScreen(cmd, "use `demo write` and `demo read` in scripts", func(ctx context.Context) error {
				seg, _, err := shm.Open(args[0], int(size), storeOptions()...)
				if err != nil {
					return err
				}
				return showText(ctx, seg, doc.Editor)
			})
		},
	}
	cmd.Flags().VarP(&size, "size", "s", "of the segment, if this run creates it; the text can have half of it")
	return cmd
}

func newView() *cobra.Command {
	return &cobra.Command{
		Use:               "view KEY",
		Short:             "Show a shared text as it is typed",
		Long:              viewHelp,
		ValidArgsFunction: completeKey,
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onScreen(cmd, "use `demo read KEY --follow` in scripts", func(ctx context.Context) error {
				seg, err := shm.Attach(args[0], storeOptions()...)
				if errors.Is(err, shm.ErrNotExist) {
					return codeError{codeNotExist, fmt.Sprintf("nobody edits %q; start `demo edit %s` first, or look for another key with `demo ls`", args[0], args[0])}
				}
				if err != nil {
					return err
				}
				return showText(ctx, seg, doc.Viewer)
			})
		},
	}
}

// onScreen runs what takes the whole screen, if there is one. It sees to it that
// the terminal is left as it was, whatever happens; see guard_unix.go.
func onScreen(cmd *cobra.Command, instead string, show func(context.Context) error) error {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		return codeError{codeUsage, fmt.Sprintf("%s needs a terminal to show itself on; %s", cmd.Name(), instead)}
	}
	return guarded(cmd.Context(), show)
}

// showText shows the text of a segment until the user quits.
func showText(ctx context.Context, seg *shm.Segment, role doc.Role) error {
	defer seg.Close()
	d, err := doc.Join(seg, role)
	if errors.Is(err, doc.ErrForeign) {
		return fmt.Errorf("%q holds something else (%s, not a text of `demo edit`); `demo read %s --hex` shows it",
			seg.Key(), units.Format(int64(seg.Size())), seg.Key())
	}
	if err != nil {
		return err
	}
	e := &editor{doc: d, key: seg.Key(), role: role, follow: role == doc.Viewer}
	err = e.run(ctx)
	if left := d.Leave(); err == nil {
		err = left
	}
	return err
}
