package stream_test

import (
	"fmt"
	"os"
	"testing"

	"qshm/keymap"
)

// TestMain runs the tests with a store of their own, for the examples, which name none.
func TestMain(m *testing.M) { os.Exit(inOwnStore(m)) }

func inOwnStore(m *testing.M) int {
	dir, err := os.MkdirTemp("", "qshm-test-")
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer os.RemoveAll(dir)
	os.Setenv(keymap.EnvDir, dir)
	return m.Run()
}
