package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"

	"github.com/edsrzf/mmap-go"

	"qshm/lockfile"
	"qshm/shm/internal/futex"
	"qshm/shm/internal/race"
	"qshm/shm/internal/spin"
)

// mapping is one segment in this process: its memory, and the slot locks that
// this process holds. All attachments of the process share it.
type mapping struct {
	shape
	path  string
	info  fs.FileInfo
	id    lockfile.ID
	head  *header
	slot  []slot
	locks *lockfile.Slots

	lockWord, eventWord futex.Word

	locker   chan struct{} // one goroutine of this process at a time waits for the lock
	watcher  chan struct{} // and one for the version
	patience spin.Patience // the watcher's
	changing sync.Mutex    // guards changed
	changed  chan struct{} // closed when the watcher has seen a change; nil if nobody else waits

	race race.Token

	users int // attachments; guarded by process

	mu      sync.Mutex // guards what follows, and changes of rw and ro
	file    *os.File   // nil once closed; the slot locks own it
	regions []mmap.MMap
	rw, ro  atomic.Pointer[[]byte] // the data as mapped for each kind of attachment

	rwRoom, roRoom []byte // the memory that rw and ro lie in, with room to grow
}

// openMapping opens the file whose lock f is held and maps it. A half-made file
// is reported by half: there is nothing to map.
func openMapping(f *lockfile.File, key string, readOnly bool) (m *mapping, half bool, err error) {
	file, err := lockfile.Open(f.Path(), os.O_RDWR)
	if err != nil {
		return nil, false, err
	}
	c, err := readContents(file, key)
	if err == nil && !c.half {
		if !os.SameFile(c.info, f.Info()) {
			return nil, false, errors.Join(fs.ErrNotExist, file.Close()) // another program has replaced the file
		}
		m, err = newMapping(file, f.Path(), c, readOnly)
		if err != nil && !readOnly { // perhaps the data are too large; garbage can be destroyed all the same
			m, err = newMapping(file, f.Path(), c, true)
		}
	}
	if m == nil {
		file.Close()
	}
	return m, c.half && err == nil, err
}

// newMapping maps the file: for a read-write attachment header and data as one,
// otherwise the header alone. The mapping owns the file from then on.
func newMapping(file *os.File, path string, c contents, readOnly bool) (*mapping, error) {
	m := &mapping{
		shape: c.shape, path: path, info: c.info, id: c.file, file: file,
		locker: make(chan struct{}, 1), watcher: make(chan struct{}, 1),
	}
	length := m.dataOff
	if !readOnly {
		length += m.size
	}
	b, err := mapRegion(file, length, mmap.RDWR, 0)
	if err != nil {
		return nil, err
	}
	if m.locks, err = lockfile.NewSlots(file, m.shape.locks, m.slots, m.shape.id); err != nil {
		unmapRegion(b)
		return nil, err
	}
	m.regions = append(m.regions, b)
	m.head, m.slot = headerAt(b), slotsAt(b, m.slots)
	m.lockWord.Init(m.head.lockHalf(), m.shape.id, "lock", 1)
	m.eventWord.Init(m.head.eventWord(), m.shape.id, "event", futex.All)
	if !readOnly {
		m.rwRoom = b[m.dataOff:length:length]
		data := m.rwRoom
		m.rw.Store(&data)
	}
	unmapLater(m, b[:m.dataOff])
	return m, nil
}

// view returns where the data are mapped for one kind of attachment, as large as
// they are now. It maps them if they are not, or have grown beyond what is
// mapped; what was mapped before stays mapped.
func (m *mapping) view(readOnly bool) (at *atomic.Pointer[[]byte], err error) {
	defer m.reportFault(debug.SetPanicOnFault(true), &err)
	m.mu.Lock()
	defer m.mu.Unlock()
	at, room, prot := &m.rw, &m.rwRoom, mmap.RDWR
	if readOnly {
		at, room, prot = &m.ro, &m.roRoom, mmap.RDONLY
	}
	size, err := m.sizeNow()
	switch data := at.Load(); {
	case err != nil || m.file == nil || data != nil && size == len(*data):
		return at, err
	case size > len(*room):
		b, err := mapData(m.file, size, len(*room) > 0, prot, m.dataOff)
		if err != nil {
			return at, err
		}
		m.regions = append(m.regions, b)
		*room = b
	}
	data := (*room)[:size:size] // append must not write into the room
	at.Store(&data)
	return at, nil
}

// mapData maps the data. Data that have grown before are mapped with room to grow
// further, where the system allows to map what the file does not have yet: so
// that growing often takes few mappings.
func mapData(file *os.File, size int, grown bool, prot, dataOff int) (mmap.MMap, error) {
	if grown && mapsBeyondEnd && checkSize(2*size, dataOff) == nil && size > 0 {
		if b, err := mapRegion(file, 2*size, prot, dataOff); err == nil {
			return b, nil
		}
	}
	return mapRegion(file, size, prot, dataOff)
}

// sizeNow returns the size of the data as the header has it, after a check
// against the file.
func (m *mapping) sizeNow() (int, error) {
	size := m.head.size.Load()
	if size == uint64(m.size) || m.file == nil {
		return m.size, nil
	}
	info, err := m.file.Stat()
	switch {
	case err != nil:
		return 0, err
	case size < uint64(m.size) || size > uint64(max(0, info.Size()-int64(m.dataOff))):
		return 0, fmt.Errorf("%w any more: %s has %d bytes of data by its header, and %d bytes in all", ErrCorrupt, m.path, size, info.Size())
	}
	return int(size), checkSize(int(size), m.dataOff)
}

func mapRegion(file *os.File, length, prot, off int) (mmap.MMap, error) {
	if err := countMapping(); err != nil {
		return nil, err
	}
	b, err := mmap.MapRegion(file, length, prot, 0, int64(off))
	if err != nil {
		mappings.Add(-1)
		return nil, os.NewSyscallError("mmap", err)
	}
	return b, nil
}

func unmapRegion(b mmap.MMap) {
	if b.Unmap() == nil {
		mappings.Add(-1)
	}
}

// mappings counts the mappings of this process.
var mappings atomic.Int64

// countMapping adds one to mappings, as far as the system allows. It leaves an
// eighth to the rest of the program: when there are none left, the Go runtime
// ends the program.
func countMapping() error {
	n, most := mappings.Add(1), maxMappings()
	if most > 0 && n > most-most/8 {
		mappings.Add(-1)
		return fmt.Errorf("%w: this process has %d segments' mappings, and the system allows %d mappings to a process (vm.max_map_count)",
			ErrNoSpace, n-1, most)
	}
	return nil
}

// linked reports whether the file is still the one at its path.
func (m *mapping) linked() bool {
	id, err := lockfile.Identify(m.path)
	return err == nil && id == m.id
}

// state returns the state of the segment. If the file was truncated to nothing,
// that is dead.
func (m *mapping) state() (state uint32) {
	state = stateDead
	defer m.ignoreFault(debug.SetPanicOnFault(true))
	return m.head.state.Load()
}

func (m *mapping) setState(state uint32) (err error) {
	defer m.reportFault(debug.SetPanicOnFault(true), &err)
	m.head.state.Store(state)
	return nil
}

// close unmaps the memory and gives back the slot locks. No goroutine of this
// process uses the data any more; calls that come too late may still read the
// header where headerOutlivesDetach says so.
func (m *mapping) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.file == nil {
		return
	}
	m.lockWord.Close()
	m.eventWord.Close()
	for _, b := range m.regions[1:] {
		unmapRegion(b)
	}
	unmapFirst(m.regions[0], m.dataOff)
	m.regions = nil
	m.locks.Close()
	m.file = nil
}
