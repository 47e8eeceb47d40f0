//go:build unix

package test

import (
	"syscall"
	"testing"
	"time"
)

// Stopping and continuing the processes of a test.

// stop stops the process, which stays alive and does nothing. When stop returns, every
// thread of it is stopped.
func (p *proc) stop() {
	p.t.Helper()
	if p.pid != p.cmd.Process.Pid {
		p.t.Skip("a process that a wrapper has started cannot be stopped")
	}
	must(p.t, p.cmd.Process.Signal(syscall.SIGSTOP))
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(p.pid, &status, syscall.WUNTRACED, nil)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || !status.Stopped() {
			p.t.Fatalf("process %d was not stopped: status %#x, %v", p.pid, status, err)
		}
		return
	}
}

// cont continues the process.
func (p *proc) cont() { p.cmd.Process.Signal(syscall.SIGCONT) }

// dump makes a process that hangs print its stacks.
func (p *proc) dump() {
	p.cont()
	p.cmd.Process.Signal(syscall.SIGQUIT)
	select {
	case <-p.ended:
	case <-time.After(5 * time.Second):
	}
}

func needStop(testing.TB) {}
