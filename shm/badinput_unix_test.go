//go:build unix

package shm

import (
	"os"
	"strings"
	"syscall"
	"testing"
)

// irregular are ways to put something at the path of a segment that is no file.
var irregular = map[string]func(path string) error{
	"symbolic link": func(path string) error { return os.Symlink(os.Args[0], path) },
	"dangling link": func(path string) error { return os.Symlink("missing", path) },
	"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
	"pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
}

func TestIrregularFileIsErrCorruptAndStaysAsItIs(t *testing.T) {
	for name, put := range irregular {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			path := segmentPath(dir, key)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before := must(os.Lstat(path))(t)
			for _, c := range byKey {
				err := c.call(key, Dir(dir))
				if wantError(t, err, c.op, key, ErrCorrupt); !strings.Contains(err.Error(), path) {
					t.Errorf("%v: does not name the file", err)
				}
			}
			list, swept := must(List(Dir(dir)))(t), must(Sweep(Dir(dir)))(t)
			if len(list) != 0 || len(swept) != 0 {
				t.Errorf("List: %v, Sweep: %v, want none", list, swept)
			}
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
				t.Errorf("the file has changed: %v", err)
			}
		})
	}
}
