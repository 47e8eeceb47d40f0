//go:build unix

package shm

import (
	"os"
	"syscall"
	"testing"
)

// irregular are ways to put under a key what is no file.
var irregular = map[string]func(path string) error{
	"symbolic link": func(path string) error { return os.Symlink(os.Args[0], path) },
	"dangling link": func(path string) error { return os.Symlink("missing", path) },
	"directory":     func(path string) error { return os.Mkdir(path, 0o700) },
	"pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
}

func TestSegmentThatIsNoFile(t *testing.T) {
	for name, put := range irregular {
		t.Run(name, func(t *testing.T) {
			dir := dirAt(t, "/dev/shm")
			path := pathOf(dir, key)
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.Lstat(path)
			for _, c := range byKey {
				wantError(t, c.call(key, Dir(dir)), c.op, key, ErrCorrupt)
			}
			list, swept := must(List(Dir(dir)))(t), must(Sweep(Dir(dir)))(t)
			if len(list) != 0 || len(swept) != 0 {
				t.Errorf("List: %v, Sweep: %v", list, swept)
			}
			if after, err := os.Lstat(path); err != nil || after.Mode() != before.Mode() {
				t.Errorf("it has changed: %v", err)
			}
		})
	}
}
