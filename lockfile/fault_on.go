//go:build qshmfault

package lockfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync/atomic"
)

// For tests only, by the build tag qshmfault: a process in whose environment
// QSHM_FAULT=step:n stands dies when it comes to that step for the nth time; with
// QSHM_FAULT_CUT=size:path it cuts that file short instead, and goes on. It
// appends each step that it comes to to the file that QSHM_FAULT_TRACE names.
var (
	faultStep  string
	faultNth   int64
	faultSeen  atomic.Int64
	faultCut   string // the path
	faultSize  int64
	faultTrace *os.File
)

func init() {
	var nth, size string
	faultStep, nth, _ = strings.Cut(os.Getenv("QSHM_FAULT"), ":")
	faultNth, _ = strconv.ParseInt(nth, 10, 64)
	size, faultCut, _ = strings.Cut(os.Getenv("QSHM_FAULT_CUT"), ":")
	faultSize, _ = strconv.ParseInt(size, 10, 64)
	if path := os.Getenv("QSHM_FAULT_TRACE"); path != "" {
		faultTrace, _ = os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	}
}

func fault(step string) { Fault(step) }

// Fault is fault for other packages.
func Fault(step string) {
	if faultTrace != nil {
		fmt.Fprintln(faultTrace, step)
	}
	if step != faultStep || faultSeen.Add(1) != faultNth {
		return
	}
	if faultCut == "" {
		if self, err := os.FindProcess(os.Getpid()); err == nil {
			self.Kill()
		}
		select {} // death comes at once, but not before Kill returns
	}
	if info, err := os.Stat(faultCut); err == nil && info.Size() > faultSize {
		os.Truncate(faultCut, faultSize)
	}
}
