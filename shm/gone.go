package shm

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
)

// This file is about memory that is gone though it is mapped: somebody has cut
// the file short, or a sparse one finds no room for a page. To touch it is a
// fault (SIGBUS), which ends a Go program. While a call of this package is at
// work with the memory the fault is a panic instead, and the panic an error.
//
//	defer s.done("read", debug.SetPanicOnFault(true), &err)

// done counts a call out, and makes *err of a fault.
func (s *Segment) done(op string, before bool, err *error) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		s.leave()
		return
	}
	gone := s.m.gone(r)
	s.leave()
	if gone == nil {
		panic(r)
	}
	*err = fail(op, s.key, gone)
}

// report makes *err of a fault.
func (m *mapping) report(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		gone := m.gone(r)
		if gone == nil {
			panic(r)
		}
		*err = gone
	}
}

// survive ends a fault that needs no error: the caller goes on without what it
// wanted to find in the header.
func (m *mapping) survive(before bool) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil && m.gone(r) == nil {
		panic(r)
	}
}

// gone says what has become of the memory, if the panic r is a fault in it.
func (m *mapping) gone(r any) error {
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok {
		return nil
	}
	m.mu.Lock()
	header := contains(m.header, fault.Addr()) // a sparse one has memory for that too
	ours := header || contains(m.rw, fault.Addr()) || contains(m.ro, fault.Addr())
	written := contains(m.ro, fault.Addr()) && canRead(m.ro, fault.Addr())
	m.mu.Unlock()
	if !ours {
		return nil
	}
	if written {
		return fmt.Errorf("%w; attach without it to write", ErrReadOnly)
	}
	if !header && !m.truncated() {
		return fmt.Errorf("%w: %s is full, and this segment was created Sparse; make room there", ErrNoSpace, filepath.Dir(m.path))
	}
	return fmt.Errorf("%w any more: somebody has truncated the file; when all have detached, create it anew", ErrCorrupt)
}

// truncated reports whether the file is too short. If it was removed, it cannot be
// asked: then a store that is full is taken for the reason.
func (m *mapping) truncated() bool {
	if now, err := os.Lstat(m.path); err == nil && os.SameFile(now, m.info) {
		return now.Size() < int64(m.dataOff)+int64(m.size)
	}
	free, _, ok := space(filepath.Dir(m.path))
	return !ok || free > 0
}

// canRead reports whether the memory at addr, which lies in b, can be read: then
// the fault there was a write.
func canRead(b []byte, addr uintptr) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	wordAt(b, addr).Load()
	return true
}
