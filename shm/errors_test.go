package shm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"qshm/lockfile"
)

func TestErrorsHaveTheirCounterpartsInFS(t *testing.T) {
	for kind, base := range map[error]error{
		ErrExist: fs.ErrExist, ErrNotExist: fs.ErrNotExist, ErrPermission: fs.ErrPermission,
	} {
		err := fail("op", "key", fmt.Errorf("%w: why", kind))
		if !errors.Is(err, kind) || !errors.Is(err, base) {
			t.Errorf("%v: is not both %v and io/fs's", err, kind)
		}
	}
	for _, kind := range []error{ErrKey, ErrSize, ErrNoSpace, ErrBusy, ErrNotLocked, ErrDetached, ErrReadOnly, ErrCorrupt, ErrAbandoned, ErrType} {
		for _, base := range []error{fs.ErrExist, fs.ErrNotExist, fs.ErrPermission, nil} {
			if errors.Is(kind, base) {
				t.Errorf("%v is %v", kind, base)
			}
		}
	}
}

// A system's error has its kind, and says nothing twice.
func TestSystemErrorsHaveTheirKinds(t *testing.T) {
	path := filepath.Join(string(filepath.Separator), "store", "name.qshm")
	for _, c := range []struct {
		err  error
		kind error
		text string
	}{
		{syscall.EACCES, ErrPermission, "permission denied"},
		{syscall.ENOSPC, ErrNoSpace, ""},
		{syscall.EMFILE, ErrNoSpace, ""},
		{syscall.ENOMEM, ErrNoSpace, ""},
		{syscall.ENOENT, ErrNotExist, ""},
		{lockfile.ErrNotRegular, ErrCorrupt, "not a regular file"},
		{fmt.Errorf("%w for 10s; it is stopped", lockfile.ErrBusy), ErrBusy, "other processes have held the file lock for 10s; it is stopped"},
	} {
		for _, err := range []error{
			fail("op", "key", &fs.PathError{Op: "open", Path: path, Err: c.err}),
			fail("op", "key", fmt.Errorf("more: %w", &fs.PathError{Op: "open", Path: path, Err: c.err})),
			fail("op", "key", fail("inner", "other", &fs.PathError{Op: "open", Path: path, Err: c.err})),
		} {
			wantError(t, err, "op", "key", c.kind, c.err)
			text := err.Error()
			if !strings.Contains(text, path) || !strings.Contains(text, c.text) || strings.Count(text, c.kind.Error()) != 1 ||
				strings.Count(text, path) != 1 || strings.Contains(text, "inner") {
				t.Errorf("%v: want the path, the kind and the reason once each", err)
			}
		}
	}
	if err := fail("op", "key", context.Canceled); err.Error() != `shm: op "key": context canceled` {
		t.Error(err)
	}
	if kind := classify(syscall.EIO); kind != nil {
		t.Errorf("EIO is of the kind %v, want none", kind)
	}
}

func TestLongKeysAreShortenedInErrors(t *testing.T) {
	store(t)
	for n, want := range map[int]string{
		64:      `shm: stat "` + strings.Repeat("k", 64) + `": does not exist: `,
		65:      `shm: stat "` + strings.Repeat("k", 64) + `"… (65 bytes): does not exist: `,
		1 << 20: `shm: stat "` + strings.Repeat("k", 64) + `"… (1048576 bytes): does not exist: `,
	} {
		_, err := Stat(strings.Repeat("k", n))
		if !strings.HasPrefix(err.Error(), want) || len(err.Error()) > 300 {
			t.Errorf("%v\nwant %s…", err, want)
		}
	}
}

func TestPermissionErrorSaysWhatCanBeDone(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 1)
	path := segmentPath(dir, key)
	err := fail("attach", key, explain(&fs.PathError{Op: "open", Path: path, Err: syscall.EACCES}, path))
	wantError(t, err, "attach", key, ErrPermission)
	for _, part := range []string{path, fmt.Sprint("user ", seg.m.describe().UID), "mode", "Perm(", "group"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%v: does not say %q", err, part)
		}
	}
	missing := filepath.Join(dir, "missing")
	err = fail("attach", key, explain(&fs.PathError{Op: "open", Path: missing, Err: syscall.EACCES}, missing))
	wantError(t, err, "attach", key, ErrPermission)
}

func TestNoSpaceSaysHowMuchWasAskedFor(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing") // of which no figures can be had
	err := fail("create", key, noSpace(&fs.PathError{Op: "fallocate", Path: filepath.Join(dir, "file"), Err: syscall.ENOSPC}, dir, 12345))
	wantError(t, err, "create", key, ErrNoSpace, syscall.ENOSPC)
	if !strings.Contains(err.Error(), "12345 bytes") || !strings.Contains(err.Error(), dir) {
		t.Error(err)
	}
	if err := noSpace(syscall.EIO, dir, 1); err != syscall.EIO {
		t.Errorf("%v: want an error that is about something else as it is", err)
	}
}
