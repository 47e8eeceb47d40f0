package test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

// isStopped reports whether every thread of a process is stopped.
func isStopped(pid int) bool {
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		return false
	}
	for _, path := range stats {
		line, err := os.ReadFile(path)
		if err != nil {
			return false
		}
		_, state, _ := bytes.Cut(line, []byte(") "))
		if !bytes.HasPrefix(state, []byte("T")) {
			return false
		}
	}
	return true
}
