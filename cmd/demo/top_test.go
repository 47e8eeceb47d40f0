//go:build unix && !solaris

package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"qshm/shm"
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
	if _, err := out.Read(make([]byte, 1)); err != nil { // it says that it has created
		t.Fatal(err)
	}
	go io.Copy(io.Discard, out)
	return cmd.Process.Pid, func() { in.Close(); cmd.Wait() }
}

func TestTopShowsAndRemoves(t *testing.T) {
	dir := testStore(t)
	_, endFirst := hold(t, "first")
	second, endSecond := hold(t, "second")
	top := openTerminal(t, dir, "top", "--every", "100ms")
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
	top.see("removed 1 that were dead")
	top.see("1 segment, 1 live")
	top.typed("r")
	top.see("remove first? its 1 attached keep the memory")
	top.typed("n")
	top.see("nothing removed")
	top.typed("ry")
	top.see("removed first")
	top.see("0 segments, 0 live")
	top.typed("q")
	top.ends(0)
	endFirst()
	nothingLeft(t)
}

// What only looking twice can tell: how fast a segment changes, and for how long
// its lock has been held; and not by comparing it with another of the same key.
func TestTopComparesWithBefore(t *testing.T) {
	h, now := history{}, time.Unix(1000, 0)
	info := shm.Info{Name: "x", Version: 10, Created: now, Owner: &shm.Attachment{PID: 1, ID: 7}}
	if r := h.look([]shm.Info{info}, now)[0]; r.changesText() != "-" || r.lockText() != "1" {
		t.Errorf("at first: %s changes, lock %s", r.changesText(), r.lockText())
	}
	info.Version = 14
	if r := h.look([]shm.Info{info}, now.Add(2*time.Second))[0]; r.changesText() != "2.0" || r.lockText() != "1 2s" {
		t.Errorf("then: %s changes, lock %s", r.changesText(), r.lockText())
	}
	info.Owner = &shm.Attachment{PID: 1, ID: 8} // another process of that number
	if r := h.look([]shm.Info{info}, now.Add(4*time.Second))[0]; r.lockText() != "1" {
		t.Errorf("another owner: lock %s", r.lockText())
	}
	info.Created = now.Add(5 * time.Second)
	if r := h.look([]shm.Info{info}, now.Add(6*time.Second))[0]; r.changesText() != "-" {
		t.Errorf("another segment: %s changes", r.changesText())
	}
}
