//go:build unix && !solaris

package main

import (
	"io"
	"strings"
	"testing"
	"time"

	"qshm/cmd/demo/internal/layout"
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

// A second look tells how fast a segment changes, and for how long a process has held
// its lock; and it does not compare a segment with another one of the same key.
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

// Tables and questions fit 80 columns, whatever the segments are.
func TestTablesFit(t *testing.T) {
	holder := &shm.Attachment{PID: 4194304, ID: 1}
	infos := []shm.Info{
		{Key: "short", Size: 1, Status: shm.StatusLive, Attached: 1},
		{Key: strings.Repeat("long ", 50), Size: 1 << 40, Status: shm.StatusLive, Attached: 65535, Owner: holder},
		{Key: strings.Repeat("日本語", 20), Size: 123456789, Status: shm.StatusDead, Abandoned: true},
		{Key: "line\nbreak", Status: shm.StatusUnknown},
		{Key: "", Status: shm.StatusDead},
	}
	l := &listing{}
	for _, line := range strings.Split(l.table(infos), "\n")[1:] {
		if n := layout.Width(line); n > lineWidth {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	for _, info := range infos {
		if text := question(info); layout.Width(text) > lineWidth-1 {
			t.Errorf("%d columns: %s", layout.Width(text), text)
		}
	}
	for want, info := range map[string]shm.Info{
		"remove short? 1 attachment (y/n)":                                                infos[0],
		"remove \"long long long lo…? 65535 attachments, locked by process 4194304 (y/n)": infos[1],
		"remove the dead segment 日本語日本語日本語日本語日…? no process uses it (y/n)":                infos[2],
	} {
		if got := question(info); got != want {
			t.Errorf("the question is %q, want %q", got, want)
		}
	}
}
