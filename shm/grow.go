package shm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"

	"qshm/lockfile"
	"qshm/shm/internal/failpoint"
)

// Growing. The steps in brackets are those of test/models/lifetime.pml.

// Grow makes the segment at least size bytes large; the new bytes are zero. Every
// attachment has them at its next call: Data returns a longer slice then. Slices,
// pointers and typed views from before stay valid and are the same memory. A
// segment never shrinks; a size that it has already is no error.
//
// The memory is allocated, also for a Sparse segment. If Grow fails, or the process
// dies in it, the segment has the old size or the new one. Grow does not take the
// segment's lock and does not move the version: to tell others, Update afterwards.
//
// Errors: ErrSize, ErrNoSpace, ErrReadOnly, ErrDetached; ErrNotExist if the segment
// was removed from its key; ErrBusy; ErrCorrupt if another program has truncated
// the file; ErrPermission if this process may not open the file any more.
func (s *Segment) Grow(size int) (err error) {
	if s.readOnly {
		return s.readOnlyError("grow")
	}
	if !s.enter() {
		return fail("grow", s.key, ErrDetached)
	}
	defer s.finishCall("grow", debug.SetPanicOnFault(true), &err)
	if err := s.m.grow(size); err != nil {
		return fail("grow", s.key, explain(err, s.m.path))
	}
	return nil
}

func (m *mapping) grow(size int) error {
	if size <= 0 {
		return fmt.Errorf("%w: %d bytes; a segment has at least one", ErrSize, size)
	}
	if err := checkSize(size, m.dataOff); err != nil {
		return err
	}
	if now, err := m.sizeNow(); err != nil || now >= size {
		return err
	}
	f, err := lockfile.Lock(context.Background(), m.path)
	if err == nil && !os.SameFile(f.Info(), m.info) {
		f.Unlock()
		err = fs.ErrNotExist
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w any more under its key: it was removed, and keeps its size", ErrNotExist)
	}
	if err != nil {
		return err
	}
	err = m.growLocked(size)
	failpoint.At("unlock_file")
	if unlock := f.Unlock(); err == nil {
		err = unlock
	}
	return err
}

// growLocked makes the segment larger; the caller holds the file lock. The file
// grows before the size in the header does: if this process dies in between, the
// file is longer than the header says, which is allowed.
func (m *mapping) growLocked(size int) (err error) {
	defer m.reportFault(debug.SetPanicOnFault(true), &err) // before the caller unlocks
	now, err := m.sizeNow()                                // another process may have been faster
	if err != nil || now >= size {
		return err
	}
	failpoint.At("allocate_more")
	end := int64(m.dataOff) + int64(now)
	info, err := m.file.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() < end: // to make it longer would fill a truncated file with zeros
		return fmt.Errorf("%w any more: another program has truncated %s", ErrCorrupt, m.path)
	}
	if err := allocate(context.Background(), m.file, m.dir(), end, int64(size-now)); err != nil { // [allocate_more]
		m.file.Truncate(info.Size())
		return err
	}
	failpoint.At("publish_size")
	m.head.size.Store(uint64(size)) // [publish_size]
	return nil
}
