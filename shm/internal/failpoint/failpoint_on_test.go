//go:build qshmfault

package failpoint

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"qshm/lockfile"
)

// steps is what the other process goes through.
var steps = []string{"one", "two", "one", "three", "one"}

func TestMain(m *testing.M) {
	if os.Getenv("QSHM_TEST_FAILPOINT") == "" {
		os.Exit(m.Run())
	}
	for i, step := range steps {
		if i%2 == 0 {
			At(step)
		} else {
			lockfile.Failpoint(step)
		}
		fmt.Println(step)
	}
}

// run lets another process go through the steps.
func run(env ...string) (out string, err error) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(append(os.Environ(), "QSHM_TEST_FAILPOINT=1"), env...)
	b, err := cmd.Output()
	return string(b), err
}

func TestDeath(t *testing.T) {
	for fault, want := range map[string]string{"one:1": "", "one:2": "one\ntwo\n", "three:1": "one\ntwo\none\n"} {
		if out, err := run("QSHM_FAULT=" + fault); err == nil || out != want {
			t.Errorf("%s: the process dies after %q, want %q; %v", fault, out, want, err)
		}
	}
	for _, fault := range []string{"", "three:2", "four:1", "one", "one:0"} {
		if out, err := run("QSHM_FAULT=" + fault); err != nil || out != "one\ntwo\none\nthree\none\n" {
			t.Errorf("%q: the process ends after %q, %v", fault, out, err)
		}
	}
}

func TestCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for fault, want := range map[string]int64{"three:1": 10, "three:2": 100} {
		if err := os.WriteFile(path, make([]byte, 100), 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := run("QSHM_FAULT="+fault, "QSHM_FAULT_CUT=10:"+path); err != nil || out != "one\ntwo\none\nthree\none\n" {
			t.Errorf("%s: the process ends after %q, %v", fault, out, err)
		}
		if info, err := os.Stat(path); err != nil || info.Size() != want {
			t.Errorf("%s: the file has %d bytes, want %d; %v", fault, info.Size(), want, err)
		}
	}
}

func TestTrace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace")
	for range 2 {
		if _, err := run("QSHM_FAULT=three:1", "QSHM_FAULT_TRACE="+path); err == nil {
			t.Error("the process did not die")
		}
	}
	want := "one\ntwo\none\nthree\none\ntwo\none\nthree\n"
	if trace, err := os.ReadFile(path); err != nil || string(trace) != want {
		t.Errorf("%q, want %q; %v", trace, want, err)
	}
}
