package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// Colours: only on terminals, and not if NO_COLOR (no-color.org) is set.

func isTerminal(f any) bool {
	file, ok := f.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

func coloursWanted() bool { return os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" }

func colours(w io.Writer) bool { return coloursWanted() && isTerminal(w) }

// forceUTF8 makes the screen show all characters if no locale is set, as in most
// containers: the terminals in use understand UTF-8.
func forceUTF8() {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			if v == "C" || v == "POSIX" {
				os.Setenv("LC_ALL", "C.UTF-8")
			}
			return
		}
	}
	os.Setenv("LC_ALL", "C.UTF-8")
}

func bold(w io.Writer, text string) string { return styled(w, "1", text) }

func dim(w io.Writer, text string) string { return styled(w, "2", text) }

func styled(w io.Writer, code, text string) string {
	if !colours(w) {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}
