package models_test

import (
	"errors"
	"os/exec"
	"runtime"
	"testing"
)

// TestModels explores the models, less of each than check.sh does without "quick".
func TestModels(t *testing.T) {
	if testing.Short() {
		t.Skip("short: exploring the models takes a minute")
	}
	if runtime.GOOS == "windows" {
		t.Skip("check.sh is a shell script")
	}
	for _, tool := range []string{"bash", "spin", "gcc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("models not checked: %s is missing", tool)
		}
	}
	out, err := exec.CommandContext(t.Context(), "./check.sh", "quick").CombinedOutput()
	t.Logf("check.sh quick:\n%s", out)
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == 3 {
		t.Skip("models not checked: a tool is missing")
	}
	if err != nil {
		t.Errorf("check.sh quick: %v", err)
	}
}
