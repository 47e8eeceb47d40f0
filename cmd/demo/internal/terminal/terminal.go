// Package terminal has what the demo draws on terminals with: colours, a status line,
// and the whole screen.
package terminal

import (
	"fmt"
	"io"
	"os"

	"golang.org/x/term"
)

// Is reports whether f is a terminal.
func Is(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// coloursWanted: not if NO_COLOR (no-color.org) is set.
func coloursWanted() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

// Bold returns text in bold face, if w is a terminal.
func Bold(w io.Writer, text string) string { return styled(w, "1", text) }

// Dim returns text in a darker colour, if w is a terminal.
func Dim(w io.Writer, text string) string { return styled(w, "2", text) }

func styled(w io.Writer, code, text string) string {
	if !coloursWanted() || !Is(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// A StatusLine is the last line of a terminal, which the next text replaces.
type StatusLine struct {
	Out   io.Writer
	shown bool
}

// Show shows text in place of the one before.
func (l *StatusLine) Show(text string) {
	fmt.Fprint(l.Out, "\r\x1b[K"+text)
	l.shown = true
}

// Clear makes room for other output.
func (l *StatusLine) Clear() {
	if l.shown {
		fmt.Fprint(l.Out, "\r\x1b[K")
	}
	l.shown = false
}
