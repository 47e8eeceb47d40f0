package main

import (
	"os/exec"
	"syscall"
)

// endWithUs sees to it that the command is asked to end if we are killed.
func endWithUs(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
