//go:build unix

package stream_test

import (
	"os"
	"path/filepath"
	"testing"

	"qshm/keymap"
)

// truncate cuts the file of the stream of a test down to its first page, which the
// segment's own header is in.
func truncate(t testing.TB, dir string) {
	t.Helper()
	if err := os.Truncate(filepath.Join(dir, keymap.Name("s")), 4096); err != nil {
		t.Fatal(err)
	}
}
