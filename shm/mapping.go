package shm

import (
	"io"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"

	"github.com/edsrzf/mmap-go"

	"qshm/lockfile"
)

// mapping is the memory of one segment in this process: the header, which every
// attachment writes, and apart from it the data, which a read-only attachment
// must not be able to write.
type mapping struct {
	shape
	path string
	info fs.FileInfo
	head *header
	slot []slot

	turn chan struct{} // one goroutine of this process at a time waits for the lock
	race raceToken

	users int // guarded by process

	header mmap.MMap
	mu     sync.Mutex // guards what follows
	file   *os.File   // see settle
	rw, ro mmap.MMap  // the data; mapped when first needed
}

// openSegment opens the file that info describes and checks what it says of
// itself. If half is true, it is the leftover of a creator that died before the
// file had its size, and there is nothing to map.
//
// The caller is inside the door, so the file is not removed meanwhile.
func openSegment(path, key string, info fs.FileInfo) (m *mapping, half bool, err error) {
	file, err := lockfile.Open(path, os.O_RDWR)
	if err != nil {
		return nil, false, err
	}
	defer func() {
		if m == nil {
			file.Close()
		}
	}()
	page, h := headerBuffer(minHeader)
	n, fileInfo, err := readHeader(file, page)
	if err != nil {
		return nil, false, err
	}
	if !os.SameFile(fileInfo, info) {
		return nil, false, fs.ErrNotExist // somebody replaced it without asking at the door
	}
	if halfMade(page[:n], fileInfo.Size()) {
		return nil, true, nil
	}
	s, err := readShape(h, key, fileInfo.Size())
	if err != nil && h.making() {
		return nil, true, nil
	}
	if err != nil {
		return nil, false, err
	}
	m, err = newMapping(file, path, fileInfo, s)
	return m, false, err
}

// readHeader reads the beginning of a file that may be anything, but for the
// byte that a door locks. It returns how far the file reached. The size comes
// last: a header that says the file is complete is right from then on.
func readHeader(file *os.File, page []byte) (n int, info fs.FileInfo, err error) {
	n, err = file.ReadAt(page[1:], 1)
	if err == io.EOF {
		err = nil
	}
	info, statErr := file.Stat()
	if statErr != nil {
		return 0, nil, statErr
	}
	return n + 1, info, err
}

// newMapping maps the header. The mapping owns the file from then on.
func newMapping(file *os.File, path string, info fs.FileInfo, s shape) (*mapping, error) {
	b, err := mmap.MapRegion(file, s.dataOff, mmap.RDWR, 0, 0)
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	m := &mapping{
		shape: s, path: path, info: info,
		header: b, head: headerAt(b), slot: slotsAt(b, s.slots),
		turn: make(chan struct{}, 1),
		file: file,
	}
	unmapLater(m)
	return m, nil
}

// linked reports whether the file is still the one at its path.
func (m *mapping) linked() bool {
	same, _ := lockfile.LeadsTo(m.path, m.info)
	return same
}

// state is the state of the segment. One whose header is gone is dead.
func (m *mapping) state() (state uint32) {
	state = stateDead
	defer m.survive(debug.SetPanicOnFault(true))
	return m.head.state.Load()
}

// setState changes it. Who is about to remove the file needs no err.
func (m *mapping) setState(state uint32) (err error) {
	defer m.report(debug.SetPanicOnFault(true), &err)
	m.head.state.Store(state)
	return nil
}

// data returns the segment's memory, mapping it if no attachment of this process
// has yet.
func (m *mapping) data(readOnly bool) ([]byte, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	at, prot := &m.rw, mmap.RDWR
	if readOnly {
		at, prot = &m.ro, mmap.RDONLY
	}
	if *at != nil {
		return *at, nil
	}
	if m.file == nil {
		file, err := lockfile.Open(m.path, os.O_RDWR)
		if err != nil {
			return nil, err
		}
		if info, err := file.Stat(); err != nil || !os.SameFile(info, m.info) {
			file.Close()
			return nil, fs.ErrNotExist // removed, or replaced by hand
		}
		m.file = file
	}
	b, err := mmap.MapRegion(m.file, m.size, prot, 0, int64(m.dataOff))
	if err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	*at = b
	return b, nil
}

// settle closes the file, once what is needed now is mapped. Only where
// unmapping needs it, it stays open.
func (m *mapping) settle() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !keepFile && m.file != nil {
		m.file.Close()
		m.file = nil
	}
}

// close ends the memory. Nobody in this process may use the data any more; the
// header may still be looked at where entomb says so.
func (m *mapping) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range []*mmap.MMap{&m.rw, &m.ro} {
		if *b != nil {
			b.Unmap()
		}
	}
	if m.header != nil {
		entomb(m.header)
		m.header = nil
	}
	if m.file != nil {
		m.file.Close()
		m.file = nil
	}
}
