package main

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The scenarios of ../scenarios.sh with ordinary processes, for platforms without namespaces.

func TestMain(m *testing.M) {
	if steps := os.Getenv("QSHM_PEER"); steps != "" {
		os.Exit(run(strings.Fields(steps)))
	}
	os.Exit(m.Run())
}

// A process is a running peer and its output.
type process struct {
	t     *testing.T
	cmd   *exec.Cmd
	lines chan string
	seen  []string
}

// store makes the store of the peers that the test starts.
func store(t *testing.T) { t.Setenv("QSHM_DIR", t.TempDir()) }

func start(t *testing.T, steps ...string) *process {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: exec.Command(exe), lines: make(chan string, 100)}
	p.cmd.Env = append(os.Environ(), "QSHM_PEER=key "+strings.Join(steps, " "))
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.cmd.Stderr = p.cmd.Stdout
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // if the test has failed, it shows the output of all peers
		p.kill()
		for p.nextLine() {
		}
		if t.Failed() {
			t.Log(strings.Join(p.seen, "\n"))
		}
	})
	go func() {
		defer close(p.lines)
		for scan := bufio.NewScanner(out); scan.Scan(); {
			p.lines <- scan.Text()
		}
	}()
	return p
}

// nextLine waits for the next line that the peer prints, and reports whether there is one.
func (p *process) nextLine() bool {
	line, ok := <-p.lines
	if ok {
		p.seen = append(p.seen, line)
	}
	return ok
}

// awaitStep waits until the peer has taken the step.
func (p *process) awaitStep(step string) {
	p.t.Helper()
	for p.nextLine() {
		if strings.Contains(p.seen[len(p.seen)-1], step+": ok") {
			return
		}
	}
	p.t.Fatalf("the peer has ended without the step %q", step)
}

// awaitEnd waits until the peer has taken all its steps.
func (p *process) awaitEnd() {
	p.t.Helper()
	for p.nextLine() {
	}
	if err := p.cmd.Wait(); err != nil {
		p.t.Fatal(err)
	}
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

func TestSharesInBothDirectionsAndLeavesNothing(t *testing.T) {
	store(t)
	a := start(t, "create=4096", "attached=2", "write=from-a", "until=from-b", "detach")
	b := start(t, "attached=1", "attach", "until=from-a", "write=from-b", "detach")
	a.awaitEnd()
	b.awaitEnd()
	start(t, "missing", "empty").awaitEnd()
}

func TestGrownSegmentIsSeenByOthers(t *testing.T) {
	store(t)
	a := start(t, "create=10", "attached=2", "grow=100000", "last=from-a", "until=done", "detach")
	b := start(t, "attached=1", "attach", "last-is=from-a", "write=done", "detach")
	a.awaitEnd()
	b.awaitEnd()
	start(t, "missing", "empty").awaitEnd()
}

func TestLockExcludes(t *testing.T) {
	store(t)
	var peers []*process
	for range 3 {
		peers = append(peers, start(t, "open=4096", "attached=3", "add=1000", "sum=3000", "detach"))
	}
	for _, p := range peers {
		p.awaitEnd()
	}
	start(t, "missing", "empty").awaitEnd()
}

func TestWaiterTakesOverFromAKilledOwner(t *testing.T) {
	store(t)
	a := start(t, "create=4096", "write=first", "lock=1s", "hold")
	b := start(t, "attached=1", "attach", "owned", "busy", "lock=20s", "abandoned=true", "attached=1", "unlock",
		"write=second", "until=third", "detach")
	b.awaitStep("busy")
	a.kill()
	b.awaitStep("unlock") // after it has counted the attachments
	start(t, "attached=1", "attach", "until=second", "write=third", "detach").awaitEnd()
	b.awaitEnd()
	start(t, "missing", "empty").awaitEnd()
}

func TestFirstCreateWorksAfterAllProcessesWereKilled(t *testing.T) {
	store(t)
	a := start(t, "create=4096", "lock=1s", "hold")
	a.awaitStep("lock=1s")
	a.kill()
	start(t, "create=8192", "lock=1s", "abandoned=false", "unlock", "detach", "missing", "empty").awaitEnd()
}

func TestProcessesThatOpenAtOnceShareOneSegment(t *testing.T) {
	store(t)
	var peers []*process
	for range 4 {
		peers = append(peers, start(t, "openatonce=100x4"))
	}
	for _, p := range peers {
		p.awaitEnd()
	}
	start(t, "empty").awaitEnd()
}
