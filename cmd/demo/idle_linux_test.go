package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What a screen may do in five idle seconds: redraw a table each second, look whether
// a process has died, and what the runtime does by itself. Polling for keys or changes
// would be thousands of calls.
const idleCalls = 600

// TestIdleScreensDoNotPoll counts system calls, which does not depend on the speed of
// the machine.
func TestIdleScreensDoNotPoll(t *testing.T) {
	if _, err := exec.LookPath("strace"); err != nil {
		t.Skip("no strace")
	}
	if testing.Short() {
		t.Skip("takes five seconds")
	}
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("edit notes")
	view := openConsole(t, dir, "view", "notes")
	view.see("1 viewer")
	top := openConsole(t, dir, "top")
	top.see("notes")
	edit.see("1 viewer")

	type trace struct {
		what string
		out  string
		err  bytes.Buffer
		cmd  *exec.Cmd
	}
	var traces []*trace
	for _, x := range []*console{edit, view, top} {
		args := []string{"5", "strace", "-f", "-o"}
		tr := &trace{what: x.cmd.Args[1], out: filepath.Join(t.TempDir(), "trace")}
		args = append(args, tr.out)
		for _, pid := range family(t, x.cmd.Process.Pid) {
			args = append(args, "-p", fmt.Sprint(pid))
		}
		tr.cmd = exec.Command("timeout", args...)
		tr.cmd.Stderr = &tr.err
		if err := tr.cmd.Start(); err != nil {
			t.Skip("no timeout command: ", err)
		}
		traces = append(traces, tr)
	}
	for _, tr := range traces {
		tr.cmd.Wait()
		if !strings.Contains(tr.err.String(), "attached") {
			t.Skipf("strace may not attach here: %s", tr.err.String())
		}
		trace, err := os.ReadFile(tr.out)
		if err != nil {
			t.Fatal(err)
		}
		calls := bytes.Count(trace, []byte("\n")) - bytes.Count(trace, []byte(" resumed>"))
		t.Logf("%s: %d system calls in 5 idle seconds", tr.what, calls)
		if calls > idleCalls {
			t.Errorf("%s: %d system calls in 5 idle seconds, at most %d are expected", tr.what, calls, idleCalls)
		}
	}
	for _, x := range []*console{top, view, edit} {
		x.typed(quit)
		x.ends(0)
	}
}

// family returns a process and its children: the guard, and the process that draws.
func family(t *testing.T, pid int) []int {
	t.Helper()
	pids := []int{pid}
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	if err != nil {
		t.Fatal(err)
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for _, field := range strings.Fields(string(text)) {
			var child int
			if _, err := fmt.Sscan(field, &child); err == nil {
				pids = append(pids, child)
			}
		}
	}
	if len(pids) < 2 {
		t.Skip("this kernel does not list children")
	}
	return pids
}
