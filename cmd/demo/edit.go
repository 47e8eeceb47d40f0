package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/doc"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// The commands edit and view; editor.go has their screen.

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

func newEdit() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "edit KEY",
		Short:             "Edit a shared text, on the whole screen",
		Long:              editHelp,
		ValidArgsFunction: completeKey(noFiles),
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onScreen(cmd, `use "demo write" and "demo read" in scripts`, func(ctx context.Context) error {
				seg, _, err := shm.Open(args[0], doc.MinSize, storeOptions()...)
				if err != nil {
					return err
				}
				return showText(ctx, seg, doc.Editor)
			})
		},
	}
	return withHelp(cmd, editExamples, exitPermission, exitNoSpace)
}

func newView() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "view KEY",
		Short:             "Show a shared text as it is typed",
		Long:              viewHelp,
		ValidArgsFunction: completeKey(noFiles),
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			return onScreen(cmd, `use "demo read KEY --follow" in scripts`, func(ctx context.Context) error {
				seg, err := shm.Attach(args[0], storeOptions()...)
				if errors.Is(err, shm.ErrNotExist) {
					return codeError{codeNotExist, fmt.Sprintf("there is no text %q in %s; start \"demo edit\" first", args[0], storePath())}
				}
				if err != nil {
					return err
				}
				return showText(ctx, seg, doc.Viewer)
			})
		},
	}
	return withHelp(cmd, viewExamples, exitNotExist, exitPermission)
}

// onScreen runs a function that takes the whole screen, if there is a terminal. The
// terminal is left as it was, whatever happens: see guard_unix.go.
func onScreen(cmd *cobra.Command, instead string, show func(context.Context) error) error {
	if !isTerminal(os.Stdin) || !isTerminal(os.Stdout) {
		return codeError{codeUsage, fmt.Sprintf("%s needs a terminal; %s", cmd.Name(), instead)}
	}
	return guarded(cmd.Context(), show)
}

// showText shows the text of a segment until the user quits.
func showText(ctx context.Context, seg *shm.Segment, role doc.Role) error {
	defer seg.Close()
	d, err := doc.Join(seg, role)
	if errors.Is(err, doc.ErrForeign) {
		return fmt.Errorf("%q has other contents (%s, no text of \"demo edit\"); \"demo read --hex\" shows them",
			seg.Key(), units.Format(int64(seg.Size())))
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
