package process

import (
	"os/exec"
	"syscall"
)

// endWithParent makes the kernel send cmd a SIGTERM if this process is killed.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
}
