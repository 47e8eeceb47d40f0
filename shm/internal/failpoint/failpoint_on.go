//go:build qshmfault

package failpoint

import (
	"os"
	"strconv"
	"strings"
	"sync/atomic"

	"qshm/lockfile"
)

var (
	target  string // the step at which the process dies
	nth     int64
	reached atomic.Int64 // how many times target has been reached
	cutPath string
	cutSize int64
	trace   *os.File
)

func init() {
	var n, size string
	target, n, _ = strings.Cut(os.Getenv("QSHM_FAULT"), ":")
	nth, _ = strconv.ParseInt(n, 10, 64)
	size, cutPath, _ = strings.Cut(os.Getenv("QSHM_FAULT_CUT"), ":")
	cutSize, _ = strconv.ParseInt(size, 10, 64)
	if path := os.Getenv("QSHM_FAULT_TRACE"); path != "" {
		trace, _ = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
	lockfile.Failpoint = At
}

// At marks a step, and does there what the environment asks for.
func At(step string) {
	if trace != nil {
		trace.WriteString(step + "\n")
	}
	if step != target || reached.Add(1) != nth {
		return
	}
	if cutPath != "" {
		if info, err := os.Stat(cutPath); err == nil && info.Size() > cutSize {
			os.Truncate(cutPath, cutSize)
		}
		return
	}
	if self, err := os.FindProcess(os.Getpid()); err == nil {
		self.Kill()
	}
	select {} // Kill can return before the process ends
}
