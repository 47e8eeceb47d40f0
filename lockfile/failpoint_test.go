//go:build qshmfault && unix

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// at runs f at the first failpoint of that name.
func at(t *testing.T, step string, f func() error) {
	t.Cleanup(func() { Failpoint = nil })
	Failpoint = func(s string) {
		if s == step {
			Failpoint = nil
			if err := f(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestFileRemovedBetweenOpenAndLock(t *testing.T) {
	path := emptyFile(t)
	at(t, "still_linked", func() error { return os.Remove(path) })
	_, err := Lock(background, path)
	wantPathError(t, err, path, fs.ErrNotExist)
}

func TestFileReplacedBetweenOpenAndLock(t *testing.T) {
	path := emptyFile(t)
	at(t, "still_linked", func() error {
		return errors.Join(os.Remove(path), os.WriteFile(path, []byte("new"), 0o600))
	})
	f := lock(t, path)
	defer f.Unlock()
	if f.Info().Size() != 3 {
		t.Error("locked the file that was removed")
	}
}

func TestNewFileRemovedBeforeItIsLocked(t *testing.T) {
	path := emptyFile(t)
	os.Remove(path)
	at(t, "still_linked", func() error { return os.Remove(path) })
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Unlock()
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, f.Info()) {
		t.Errorf("the file locked is not the one at the path: %v", err)
	}
}

func TestNewFileUsedBeforeItIsLocked(t *testing.T) {
	path := emptyFile(t)
	os.Remove(path)
	at(t, "still_linked", func() error { return os.WriteFile(path, []byte("used"), 0o600) })
	_, err := Create(path, 0o600)
	wantPathError(t, err, path, fs.ErrExist)
	lock(t, path).Unlock()
}
