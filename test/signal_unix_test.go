//go:build unix

package test

import (
	"syscall"
	"testing"
	"time"
)

// stop halts the process: it is alive, and does nothing. It stands still when
// stop returns.
func (p *proc) stop() {
	p.t.Helper()
	if p.pid != p.cmd.Process.Pid {
		p.t.Skip("processes that are started by a wrapper cannot be stopped")
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	// Not for the test's Wait, which only a process that has ended concerns.
	for end := time.Now().Add(patience); !isStopped(p.pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("process %d does not stop", p.pid)
		}
	}
}

// cont lets the process go on.
func (p *proc) cont() { p.cmd.Process.Signal(syscall.SIGCONT) }

// dump makes a process that hangs say where.
func (p *proc) dump() {
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
}

func needStop(testing.TB) {}
