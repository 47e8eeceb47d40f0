//go:build unix && !linux

package test

import (
	"os/exec"
	"strconv"
	"strings"
)

// isStopped reports whether a process is stopped.
func isStopped(pid int) bool {
	out, err := exec.Command("ps", "-o", "state=", "-p", strconv.Itoa(pid)).Output()
	return err == nil && strings.HasPrefix(strings.TrimSpace(string(out)), "T")
}
