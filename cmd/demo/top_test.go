//go:build unix && !solaris

package main

import (
	"io"
	"strings"
	"testing"
)

// hold keeps a segment alive until the function that it returns is called.
func hold(t *testing.T, key string) (pid int, end func()) {
	t.Helper()
	cmd := demo(t, "-k", key)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil { // it reports that it has created
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	return cmd.Process.Pid, func() { in.Close(); cmd.Wait() }
}

func TestTopShowsAndRemoves(t *testing.T) {
	dir := testStore(t)
	_, endFirst := hold(t, "first")
	second, endSecond := hold(t, "second")
	top := openConsole(t, dir, "top", "--every", "100ms")
	top.see("2 segments, 2 live")
	top.until("both, by key", func() bool {
		rows := top.rows()
		return strings.HasPrefix(rows[2], ">first") && strings.HasPrefix(rows[3], " second")
	})
	top.typed("k") // again: the other way round
	top.until("both, the other way round", func() bool {
		return strings.HasPrefix(top.rows()[2], " second") || strings.HasPrefix(top.rows()[2], ">second")
	})
	kill(t, second)
	endSecond()
	top.see("2 segments, 1 live")
	top.see("dead")
	top.typed("d")
	top.see("removed 1 dead segment")
	top.see("1 segment, 1 live, in ")
	top.typed("r")
	top.see("remove first? 1 attachment (y/n)")
	top.typed("n")
	top.see("nothing removed")
	third, endThird := hold(t, "third")
	top.see("third")
	kill(t, third)
	endThird()
	top.see("2 segments, 1 live")
	top.typed("k\x1b[B\x1b[Br") // by key again, the last
	top.see("remove the dead segment third? no process uses it (y/n)")
	top.typed("y")
	top.see("removed third")
	top.typed("ry")
	top.see("removed first; the memory stays for 1 attachment")
	top.see("0 segments, 0 live")
	top.typed("q")
	top.ends(0)
	endFirst()
	nothingLeft(t)
}
