package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"

	"qshm/lockfile"
)

// The kinds of errors. Every error of this package is an *Error that wraps one of
// them, the error of a context, or what the system said. Those that have a
// counterpart in io/fs match it too: errors.Is(err, fs.ErrExist) holds for
// ErrExist, and so for ErrNotExist and ErrPermission.
var (
	// ErrKey: the key is empty.
	ErrKey error = &kind{"invalid key", nil}
	// ErrSize: a size is zero or negative or more than possible, or an offset lies
	// outside the segment.
	ErrSize error = &kind{"invalid size", nil}
	// ErrExist: a live process is attached to a segment of that key.
	ErrExist error = &kind{"already exists", fs.ErrExist}
	// ErrNotExist: no live process is attached to a segment of that key.
	ErrNotExist error = &kind{"does not exist", fs.ErrNotExist}
	// ErrPermission: the segment or the store belongs to another user, or the
	// user's own store is open to others.
	ErrPermission error = &kind{"permission denied", fs.ErrPermission}
	// ErrNoSpace: the store is full, or a memory limit is reached; all attachments
	// of the segment are taken; or the system is out of memory, descriptors,
	// mappings or address space.
	ErrNoSpace error = &kind{"out of space", nil}
	// ErrBusy: other processes have held the file lock of the segment for ten
	// seconds, and the call had no context to say how long to wait.
	ErrBusy error = &kind{"busy", nil}
	// ErrNotLocked: unlock of a segment that this attachment has not locked.
	ErrNotLocked error = &kind{"not locked", nil}
	// ErrDetached: the attachment has ended.
	ErrDetached error = &kind{"detached", nil}
	// ErrReadOnly: a write through a read-only attachment.
	ErrReadOnly error = &kind{"read-only attachment", nil}
	// ErrCorrupt: the file that stands under the key is not a segment, or one that
	// this version does not understand. Such a file is never changed or removed. Or
	// another program has truncated the file of a segment in use.
	ErrCorrupt error = &kind{"not a segment", nil}
	// ErrAbandoned: the last writer died while it held the lock, so the data may be
	// half-written; they were copied as they are. The next to lock the segment for
	// writing, and to repair the data, puts an end to this.
	ErrAbandoned error = &kind{"abandoned by a writer that died", nil}
	// ErrType: a type that memory shared between processes cannot carry.
	ErrType error = &kind{"invalid type", nil}
)

type kind struct {
	text string
	base error // the counterpart in io/fs
}

func (k *kind) Error() string { return k.text }

func (k *kind) Is(target error) bool { return k.base != nil && target == k.base }

// Error is what every function of this package reports.
type Error struct {
	Op  string // the operation, in lower case: "create", "attach", "lock", …
	Key string // of the segment; empty if the operation is about a whole store
	Err error  // wraps a kind, the error of a context, or that of the system
}

// shownKey is how many bytes of a key an error shows.
const shownKey = 64

func (e *Error) Error() string {
	switch {
	case e.Key == "":
		return "shm: " + e.Op + ": " + e.Err.Error()
	case len(e.Key) > shownKey:
		return fmt.Sprintf("shm: %s %q… (%d bytes): %v", e.Op, e.Key[:shownKey], len(e.Key), e.Err)
	}
	return fmt.Sprintf("shm: %s %q: %v", e.Op, e.Key, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// fail makes an error of this package from any.
func fail(op, key string, err error) error {
	var own *Error
	if errors.As(err, &own) {
		err = own.Err
	}
	var known *kind
	if kind := classify(err); kind != nil && !errors.As(err, &known) {
		err = &classified{kind, err}
	}
	return &Error{op, key, err}
}

// classified is a system's error with its kind.
type classified struct {
	kind, err error
}

func (c *classified) Unwrap() []error { return []error{c.kind, c.err} }

// Error does not say twice what kind of error it is.
func (c *classified) Error() string {
	text := c.err.Error()
	var path *fs.PathError
	if errors.As(c.err, &path) && strings.Contains(path.Err.Error(), c.kind.Error()) {
		text = strings.TrimSuffix(text, ": "+path.Err.Error())
	}
	return c.kind.Error() + ": " + text
}

// classify finds the kind of a system's error.
func classify(err error) error {
	is := func(targets ...error) bool {
		for _, t := range targets {
			if errors.Is(err, t) {
				return true
			}
		}
		return false
	}
	switch {
	case is(lockfile.ErrNotRegular):
		return ErrCorrupt
	case is(lockfile.ErrBusy):
		return ErrBusy
	case is(fs.ErrPermission, syscall.EROFS):
		return ErrPermission
	case is(fs.ErrNotExist):
		return ErrNotExist
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE, syscall.ENOLCK) || outOfResources(err):
		return ErrNoSpace
	case is(syscall.EFBIG):
		return ErrSize
	}
	return nil
}

// explain adds to an error about the file at path what a person can do about it.
func explain(err error, path string) error {
	switch {
	case errors.Is(err, ErrCorrupt) && !strings.Contains(err.Error(), path):
		return fmt.Errorf("%w (%s)", err, path)
	case errors.Is(err, fs.ErrPermission) && path != "":
		info, look := os.Lstat(path)
		if look != nil {
			return err
		}
		return &classified{ErrPermission, fmt.Errorf("%s belongs to user %d and has mode %v; its creator can share it by Perm(0o660) and a common group, in a store that both may write",
			path, lockfile.Owner(info), info.Mode())}
	}
	return err
}

// pathIn returns the path that an error names.
func pathIn(err error) string {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Path
	}
	return err.Error()
}
