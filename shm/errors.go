package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"qshm/lockfile"
)

// The kinds of errors. Every error of this package is an *Error that wraps one
// of them, the error of a context, or what the system said. Those that have a
// counterpart in io/fs match it too: errors.Is(err, fs.ErrExist) holds for
// ErrExist, and so for ErrNotExist and ErrPermission.
var (
	// ErrKey: the key is empty.
	ErrKey error = &kind{"invalid key", nil}
	// ErrSize: the size is zero or negative, more than there can be, or an
	// offset lies outside of the segment.
	ErrSize error = &kind{"invalid size", nil}
	// ErrExist: a process that is alive is attached to a segment of that key.
	ErrExist error = &kind{"already exists", fs.ErrExist}
	// ErrNotExist: nobody who is alive has a segment of that key.
	ErrNotExist error = &kind{"does not exist", fs.ErrNotExist}
	// ErrPermission: the segment or the store belongs to somebody else, or the
	// store is open to others without having been chosen by the caller.
	ErrPermission error = &kind{"permission denied", fs.ErrPermission}
	// ErrNoSpace: the store is full, all attachments of the segment are taken,
	// or the system is out of memory, descriptors or address space.
	ErrNoSpace error = &kind{"out of space", nil}
	// ErrNotLocked: unlock of a segment that this attachment has not locked.
	ErrNotLocked error = &kind{"not locked", nil}
	// ErrDetached: the attachment has ended.
	ErrDetached error = &kind{"detached", nil}
	// ErrReadOnly: a write through a read-only attachment.
	ErrReadOnly error = &kind{"read-only attachment", nil}
	// ErrCorrupt: the file that stands under the key is not a segment, or one
	// that this version does not understand. Such a file is never removed. Or
	// somebody has truncated it while it was in use, or about to be.
	ErrCorrupt error = &kind{"not a segment", nil}
	// ErrAbandoned: the last writer died inside the lock, so the data may be
	// half-written; a copy was made of what stands there. Whoever next locks
	// the segment for writing, and repairs it, puts an end to this.
	ErrAbandoned error = &kind{"abandoned by a writer that died", nil}
	// ErrType: a typed view that memory shared between processes cannot carry.
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

func (e *Error) Error() string {
	if e.Key == "" {
		return "shm: " + e.Op + ": " + e.Err.Error()
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
		err = fmt.Errorf("%w: %w", kind, err)
	}
	return &Error{op, key, err}
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
	case is(fs.ErrPermission, syscall.EROFS):
		return ErrPermission
	case is(fs.ErrNotExist):
		return ErrNotExist
	case is(syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM, syscall.EMFILE, syscall.ENFILE) || outOfResources(err):
		return ErrNoSpace
	case is(syscall.EFBIG):
		return ErrSize
	}
	return nil
}
