//go:build unix && !solaris

package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

const endOfInput = "\x04" // Ctrl-D

// What is typed in either run shows in the other, with the process that it is from.
func TestTypedTextGoesBothWays(t *testing.T) {
	dir := testStore(t)
	a := openConsole(t, dir)
	a.see("type lines")
	a.typed("early\n")
	b := openConsole(t, dir, "--key", "demo")
	b.see("early") // from the ring
	a.see(fmt.Sprintf("%d has joined", b.cmd.Process.Pid))
	a.typed("from a\n")
	b.see(fmt.Sprintf("%d: from a", a.cmd.Process.Pid))
	b.typed("from b\n")
	a.see(fmt.Sprintf("%d: from b", b.cmd.Process.Pid))

	// Others go on when one ends.
	a.typed(endOfInput)
	a.ends(0)
	b.see(fmt.Sprintf("%d has left", a.cmd.Process.Pid))
	if n := strings.Count(strings.Join(b.rows(), "\n"), "from b"); n != 1 {
		t.Errorf("the second run shows its own line %d times", n)
	}
	c := openConsole(t, dir, "--key", "demo")
	c.see(": from b")
	c.typed("from c\n")
	b.see(fmt.Sprintf("%d: from c", c.cmd.Process.Pid))
	kill(t, c.cmd.Process.Pid)
	c.ends(-1)
	b.typed("\x03") // Ctrl-C
	b.ends(130)
	nothingLeft(t)
}

// A line that has not ended does not run into that of another process.
func TestLinesOfTwoWritersStayApart(t *testing.T) {
	dir := testStore(t)
	a := openConsole(t, dir)
	a.see("type lines")
	b := openProgram(t, dir, "sh", "-c", "(printf half; while ! test -e "+dir+"/../end; do sleep 0.1; done; echo ' of b') | demo")
	b.see("sharing the input")
	a.see("half")
	c := openConsole(t, dir)
	c.see("half")
	c.typed("whole line of c\n")
	a.until("three lines", func() bool {
		rows := a.rows()
		for i, row := range rows {
			if strings.HasSuffix(row, "half") && i+2 < len(rows) {
				return strings.HasSuffix(rows[i+1], " has joined") && strings.HasPrefix(rows[i+2], fmt.Sprintf("%d: whole line of c", c.cmd.Process.Pid))
			}
		}
		return false
	})
	if err := os.WriteFile(dir+"/../end", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	a.see(":  of b")
	b.ends(0)
	for _, x := range []*console{a, c} {
		x.typed(endOfInput)
		x.ends(0)
	}
	nothingLeft(t)
}

// Lines of one writer show as they were typed.
func TestOneWriterNeedsNoName(t *testing.T) {
	dir := testStore(t)
	a := openConsole(t, dir)
	a.see("type lines")
	b := openConsole(t, dir, "--read")
	a.typed("plain\n")
	b.until("the line alone", func() bool {
		for _, row := range b.rows() {
			if row == "plain" {
				return true
			}
		}
		return false
	})
	a.typed(endOfInput)
	a.ends(0)
	b.ends(0)
	b.see("the last writer has ended")
	nothingLeft(t)
}
