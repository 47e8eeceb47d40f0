package spin

import (
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A process that is bound to a processor waits for processes on the others.
func TestABoundProcessSpins(t *testing.T) {
	if os.Getenv("QSHM_SPIN_TEST") != "" {
		fmt.Println(runtime.NumCPU(), Worthwhile)
		return
	}
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil || all.Count() < 2 {
		t.Skip("this process has one processor")
	}
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			one.Set(cpu)
		}
	}
	runtime.LockOSThread() // a child inherits the processors of the thread that starts it
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		t.Skip(err)
	}
	defer unix.SchedSetaffinity(0, &all)
	child := exec.Command(os.Args[0], "-test.run", t.Name())
	child.Env = append(os.Environ(), "QSHM_SPIN_TEST=1")
	out, err := child.CombinedOutput()
	if err != nil || !strings.HasPrefix(string(out), "1 true\n") {
		t.Errorf("%v: %s; want 1 processor, and to spin", err, out)
	}
}
