//go:build unix

package lockfile

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// irregular returns what can stand at a path and is no file.
func irregular(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	file := at("file")
	for _, err := range []error{
		os.WriteFile(file, nil, 0o600),
		os.Symlink(file, at("link")),
		os.Symlink(at("missing"), at("dangling")),
		os.Mkdir(at("dir"), 0o700),
		syscall.Mkfifo(at("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{
		"symbolic link": at("link"), "dangling link": at("dangling"), "directory": at("dir"), "pipe": at("fifo"),
	}
}
