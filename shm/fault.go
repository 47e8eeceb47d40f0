package shm

import (
	"fmt"
	"path/filepath"
	"runtime/debug"

	"qshm/shm/internal/alloc"
)

// Faults: memory that is mapped can be missing, because another program has
// truncated the file, or because the store has no room for a page of a sparse
// segment. Touching it is a fault (SIGBUS), which ends a Go program. During a call
// of this package the fault is a panic instead, and the panic an error.
//
//	defer s.finishCall("read", debug.SetPanicOnFault(true), &err)

// finishCall counts a call out and turns a fault into *err.
func (s *Segment) finishCall(op string, before bool, err *error) {
	debug.SetPanicOnFault(before)
	r := recover()
	if r == nil {
		s.leave()
		return
	}
	fault := s.m.faultError(r)
	s.leave()
	if fault == nil {
		panic(r)
	}
	*err = fail(op, s.key, fault)
}

// reportFault turns a fault into *err.
func (m *mapping) reportFault(before bool, err *error) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil {
		fault := m.faultError(r)
		if fault == nil {
			panic(r)
		}
		*err = fault
	}
}

// ignoreFault recovers from a fault in the mapping: the caller goes on without
// what it wanted to read or write in the header.
func (m *mapping) ignoreFault(before bool) {
	debug.SetPanicOnFault(before)
	if r := recover(); r != nil && m.faultError(r) == nil {
		panic(r)
	}
}

// faultError explains the panic r, if it is a fault in this mapping.
func (m *mapping) faultError(r any) error {
	fault, ok := r.(interface{ Addr() uintptr })
	if !ok {
		return nil
	}
	ours, header, written := m.faultAt(fault.Addr())
	switch {
	case !ours:
		return nil
	case written:
		return fmt.Errorf("%w; attach without it to write", ErrReadOnly)
	case !header && !m.truncated():
		return fmt.Errorf("%w: %s is full, and this segment was created Sparse; make room there", ErrNoSpace, filepath.Dir(m.path))
	}
	return fmt.Errorf("%w any more: another program has truncated %s; when every process has detached, create the segment anew", ErrCorrupt, m.path)
}

// faultAt reports whether addr lies in this mapping, whether in its header (which
// has memory in a sparse segment too), and whether it can be read, so that the
// fault was a write.
func (m *mapping) faultAt(addr uintptr) (ours, header, written bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for i, b := range m.regions {
		if contains(b, addr) {
			return true, i == 0 && contains(b[:m.dataOff], addr), canRead(b, addr)
		}
	}
	return false, false, false
}

// truncated reports whether the file is shorter than the segment.
func (m *mapping) truncated() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	size := m.size
	for _, data := range []*[]byte{m.rw.Load(), m.ro.Load()} { // it may have grown
		if data != nil {
			size = max(size, len(*data))
		}
	}
	if m.file != nil {
		if info, err := m.file.Stat(); err == nil {
			return info.Size() < int64(m.dataOff)+int64(size)
		}
	}
	free, _, ok := alloc.Free(filepath.Dir(m.path))
	return !ok || free > 0
}

// canRead reports whether the memory at addr, which lies in b, can be read.
func canRead(b []byte, addr uintptr) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	wordAt(b, addr).Load()
	return true
}
