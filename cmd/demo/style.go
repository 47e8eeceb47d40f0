package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// This file is about colours: only on terminals, and not where NO_COLOR
// (no-color.org) asks for none.

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func coloursWanted() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

func colours(w io.Writer) bool { return coloursWanted() && isTerminal(w) }

func bold(w io.Writer, text string) string { return styled(w, "1", text) }

func dim(w io.Writer, text string) string { return styled(w, "2", text) }

func styled(w io.Writer, code, text string) string {
	if !colours(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
