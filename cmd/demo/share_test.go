//go:build unix && !solaris

package main

import (
	"fmt"
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
