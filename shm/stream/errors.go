package stream

import (
	"errors"
	"fmt"
	"runtime/debug"

	"qshm/shm"
)

var (
	// ErrNotStream: the segment is not a stream, or one of another version.
	ErrNotStream = errors.New("not a stream")
	// ErrWriterDied: a writer has died, no other is left, and everything was read.
	ErrWriterDied = errors.New("the writer died")
	// ErrClosed: the Stream, the Subscription or the Reservation was closed.
	ErrClosed = errors.New("closed")
	// ErrGroup: the name of a group is empty, or longer than 64 bytes.
	ErrGroup = errors.New("invalid group")
)

var errCorruptRing = fmt.Errorf("%w any more: another program has written into the ring; when every process has closed it, open it anew", ErrNotStream)

// fail makes an error about key from any.
func fail(op, key string, err error) error {
	err = cause(err)
	if errors.Is(err, shm.ErrDetached) {
		err = ErrClosed
	}
	return &shm.Error{Op: op, Key: key, Err: err}
}

// cause returns what an *shm.Error is about, without its operation and key.
func cause(err error) error {
	var inner *shm.Error
	if errors.As(err, &inner) {
		return inner.Err
	}
	return err
}

// finish ends a call that is in sec, and that may have the lock. It turns a fault into
// *err.
func (s *Stream) finish(op string, sec *section, locked *bool, before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		fault := faultError(op, s.key, r)
		if fault == nil {
			sec.leave()
			panic(r)
		}
		*err = fault
	}
	if *locked {
		s.unlockBroken()
	}
	sec.leave()
}

// faultError explains the panic r, if it is a fault: the file was truncated.
func faultError(op, key string, r any) error {
	if _, ok := r.(interface{ Addr() uintptr }); !ok {
		return nil
	}
	return fail(op, key, fmt.Errorf("%w any more: another program has truncated its file; when every process has closed it, open it anew", shm.ErrCorrupt))
}

func (s *Stream) unlockBroken() {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { recover() }()
	s.seg.Unlock()
}
