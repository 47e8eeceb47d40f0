package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/spf13/cobra"
)

// commands returns a command and all commands below it that the help lists, but for
// cobra's own, which print completion scripts.
func commands(cmd *cobra.Command) []*cobra.Command {
	all := []*cobra.Command{cmd}
	for _, c := range cmd.Commands() {
		if !c.Hidden && c.Name() != "completion" {
			all = append(all, commands(c)...)
		}
	}
	return all
}

// Every help fits 80 columns, and ends with the exit codes and two examples.
func TestHelpOfEveryCommand(t *testing.T) {
	for _, cmd := range commands(newRoot()) {
		name := cmd.CommandPath()
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		help := out.String()
		for _, line := range strings.Split(help, "\n") {
			if n := utf8.RuneCountInString(line); n > 80 {
				t.Errorf("%s: %d columns: %s", name, n, line)
			}
		}
		if strings.Contains(help, "`") {
			t.Errorf("%s: the help has a back-quote", name)
		}
		_, end, ok := strings.Cut(help, "\nExit codes:\n      0  done\n")
		_, examples, ok2 := strings.Cut(end, "\n\nExamples:\n")
		if !ok || !ok2 {
			t.Errorf("%s: the help does not end with exit codes and examples:\n%s", name, help)
			continue
		}
		lines := strings.Split(strings.TrimRight(examples, "\n"), "\n")
		if len(lines) < 2 {
			t.Errorf("%s: fewer than two examples:\n%s", name, examples)
		}
		for _, line := range lines {
			if !strings.HasPrefix(line, "  ") || !strings.Contains(line, "demo ") {
				t.Errorf("%s: not an example: %s", name, line)
			}
		}
	}
}

// No flag is described by a word that only names its type.
func TestHelpNamesTheValuesOfFlags(t *testing.T) {
	for _, cmd := range commands(newRoot()) {
		usage := cmd.Flags().FlagUsages()
		for _, kind := range []string{" string", " int", " duration", "0s)", "0 bytes)"} {
			if strings.Contains(usage, kind) {
				t.Errorf("%s: %q in the flags:\n%s", cmd.CommandPath(), kind, usage)
			}
		}
	}
}

func TestVersion(t *testing.T) {
	out, err := demo(t, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "demo ") || strings.Count(string(out), "\n") != 1 {
		t.Errorf("demo --version prints %q, %v", out, err)
	}
}
