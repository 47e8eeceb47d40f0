//go:build unix

package test

import (
	"syscall"
	"testing"
	"time"
)

// stop stops the process, which is alive and does nothing then. It is stopped when stop
// returns.
func (p *proc) stop() {
	p.t.Helper()
	if p.pid != p.cmd.Process.Pid {
		p.t.Skip("a process that a wrapper has started cannot be stopped")
	}
	if err := p.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		p.t.Fatal(err)
	}
	// Not by Wait, which waits for the end of a process only.
	for end := time.Now().Add(patience); !isStopped(p.pid); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("process %d does not stop", p.pid)
		}
	}
}

// cont continues the process.
func (p *proc) cont() { p.cmd.Process.Signal(syscall.SIGCONT) }

// dump makes a process that hangs print its stacks.
func (p *proc) dump() {
	p.cmd.Process.Signal(syscall.SIGCONT)
	p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
}

func needStop(testing.TB) {}
