//go:build unix

package main

import (
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func cmdSignal(ts *testscript.TestScript, neg bool, args []string) {
	sig := map[string]syscall.Signal{"INT": syscall.SIGINT, "TERM": syscall.SIGTERM, "STOP": syscall.SIGSTOP, "CONT": syscall.SIGCONT}[args[1]]
	p := named(ts, args).cmd.Process
	ts.Check(p.Signal(sig))
	if sig != syscall.SIGSTOP {
		return
	}
	// Until it has stopped, it might see what the script does next.
	for late := time.Now().Add(patience); time.Now().Before(late); {
		state, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(p.Pid)).Output()
		ts.Check(err)
		if strings.HasPrefix(string(state), "T") {
			return
		}
	}
	ts.Fatalf("%s does not stop", args[0])
}
