package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync/atomic"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
)

// This file looks at segments from outside, as ipcs does, and removes them, as
// ipcrm does. Looking changes nothing and waits for nobody.

// Status says what a segment is to those who look for it.
type Status int

const (
	// StatusUnknown: the file cannot be read by this user.
	StatusUnknown Status = iota
	// StatusLive: a process that is alive is attached.
	StatusLive
	// StatusDead: nobody is. The next to create or attach removes it.
	StatusDead
	// StatusRemoved: processes are attached, but the key is free.
	StatusRemoved
)

func (s Status) String() string {
	switch s {
	case StatusLive:
		return "live"
	case StatusDead:
		return "dead"
	case StatusRemoved:
		return "removed"
	}
	return "unknown"
}

// An Attachment is one attachment of a process that is alive.
type Attachment struct {
	PID      int // as its own namespace knows it: in another container it names another process, or none
	ReadOnly bool
	ID       uint64 // tells it from all others of the segment, also where pids are the same; never 0
}

// Info describes a segment.
type Info struct {
	Key         string // its first 256 bytes, if it is longer
	Name        string // of the file in the store
	Path        string // of the file
	Size        int64  // of the data, in bytes
	UID         uint32 // who owns the file; 0 on Windows
	Perm        fs.FileMode
	Created     time.Time
	Attached    int          // how many attachments living processes have
	Attachments []Attachment // those
	Owner       *Attachment  // who holds the lock; nil if nobody does who is alive
	Version     uint32
	Status      Status
	ID          uint64 // random: tells a segment from its successor under the same key
	MaxAttached int    // how many attachments there can be
}

// Info describes the segment as Stat does, also one that was removed.
//
// Errors: ErrDetached, and ErrCorrupt if somebody has truncated the file to nothing.
func (s *Segment) Info() (info Info, err error) {
	if !s.enter() {
		return Info{}, fail("info", s.key, ErrDetached)
	}
	defer s.done("info", debug.SetPanicOnFault(true), &err)
	info = describe(s.head, s.m.slot, s.m.shape, s.m.path, s.m.info)
	info.Key = s.key
	if info.Status == StatusLive && !s.m.linked() {
		info.Status = StatusRemoved
	}
	return info, nil
}

// ID is this attachment's own among the Attachments of Info. Processes can leave
// it in the memory to say who they are: a pid says nothing in another container,
// where each process may be number 1. It is 0 once detached.
func (s *Segment) ID() uint64 {
	if !s.enter() {
		return 0
	}
	defer s.leave()
	return attachmentID(s.a.h.presence.Token(), s.a.i)
}

// attachmentID mixes the process with the slot, so that the attachments of one
// process differ too.
func attachmentID(token uint64, slot int) uint64 {
	if id := token + uint64(slot)*0x9e3779b97f4a7c15; id != 0 {
		return id
	}
	return 1
}

// Stat describes the segment under key. Only attachments of living processes are
// counted. It changes nothing: what is dead is reported so.
//
// Errors: ErrKey, ErrNotExist, ErrPermission, ErrCorrupt.
func Stat(key string, opts ...Option) (Info, error) {
	p, err := locate("stat", key, opts)
	if err != nil {
		return Info{}, err
	}
	info, err := inspect(p.path, key)
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; nobody has created it in %s", ErrNotExist, p.dir)
	}
	if err != nil {
		return Info{}, p.fail(err)
	}
	info.Key = key
	return info, nil
}

// List describes all segments of a store, as Stat would each. What is no segment
// is left out.
func List(opts ...Option) ([]Info, error) {
	dir, names, err := readStore("list", opts)
	if err != nil {
		return nil, err
	}
	var all []Info
	for _, name := range names {
		if !keymap.IsName(name) {
			continue
		}
		info, err := inspect(filepath.Join(dir, name), "")
		switch {
		case errors.Is(err, fs.ErrPermission):
			info = stranger(dir, name)
		case err != nil:
			continue // gone meanwhile, or no segment
		}
		all = append(all, info)
	}
	return all, nil
}

func readStore(op string, opts []Option) (dir string, names []string, err error) {
	o := gather(opts)
	dir, err = keymap.Dir(o.dir)
	if err != nil {
		return "", nil, fail(op, "", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", nil, fail(op, "", err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return dir, names, nil
}

// stranger describes a file that may not be opened.
func stranger(dir, name string) Info {
	info := Info{Name: name, Path: filepath.Join(dir, name)}
	if file, err := os.Lstat(info.Path); err == nil {
		info.Size, info.Perm, info.UID, info.Created = file.Size(), file.Mode().Perm(), fileUID(file), file.ModTime()
	}
	return info
}

// inspect reads and describes the segment in the file at path.
func inspect(path, key string) (Info, error) {
	file, err := lockfile.Open(path, os.O_RDONLY)
	if err != nil {
		if info, look := os.Lstat(path); look == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: %w", lockfile.ErrNotRegular, err)
		}
		return Info{}, err
	}
	defer file.Close()
	page, h := headerBuffer(minHeader)
	n, info, err := readHeader(file, page)
	switch {
	case info != nil && !info.Mode().IsRegular():
		return Info{}, fmt.Errorf("%w: %s is a %v", ErrCorrupt, path, info.Mode().Type())
	case err != nil:
		return Info{}, err
	case halfMade(page[:n], info.Size()):
		return dead(path, info), nil
	}
	s, err := readShape(h, key, info.Size())
	switch {
	case err != nil && h.making():
		return dead(path, info), nil
	case err != nil:
		return Info{}, err
	}
	if s.dataOff > minHeader { // more slots than the first page has
		page, h = headerBuffer(s.dataOff)
		if _, info, err = readHeader(file, page); err != nil {
			return Info{}, err
		}
	}
	return describe(h, slotsAt(page, s.slots), s, path, info), nil
}

// dead describes what a creator left that died before the file had its size.
func dead(path string, file fs.FileInfo) Info {
	return Info{Name: filepath.Base(path), Path: path, UID: fileUID(file), Perm: file.Mode().Perm(),
		Created: file.ModTime(), Status: StatusDead}
}

// describe puts together what a header and its slots say.
func describe(h *header, slots []slot, s shape, path string, file fs.FileInfo) Info {
	info := dead(path, file)
	info.Key = h.storedKey()
	info.Size = int64(s.size)
	info.ID, info.MaxAttached = s.id, s.slots
	info.Created = time.Unix(0, h.created)
	w := h.word.Load()
	info.Version = version(w)
	owns, gen, held := ownerSlot(w)
	known := map[uint64]bool{}
	for i := range slots {
		token := slots[i].token.Load()
		if token == 0 {
			continue
		}
		alive, asked := known[token]
		if !asked {
			alive = lockfile.Alive(filepath.Dir(path), token)
			known[token] = alive
		}
		if !alive {
			continue
		}
		meta := slots[i].meta.Load()
		a := Attachment{PID: metaPID(meta), ReadOnly: metaReadOnly(meta), ID: attachmentID(token, i)}
		info.Attachments = append(info.Attachments, a)
		if held && i == owns && metaGen(meta) == gen {
			info.Owner = &a
		}
	}
	info.Attached = len(info.Attachments)
	switch state := h.state.Load(); {
	case info.Attached == 0 || state == stateMaking || state == stateDead:
		info.Status = StatusDead
	case state == stateRemoved:
		info.Status = StatusRemoved
	default:
		info.Status = StatusLive
	}
	return info
}

// Remove takes the segment away from its key: the key is free at once, and who
// is attached keeps the memory and the lock to the end. Garbage is removed too.
//
// Errors: ErrKey, ErrNotExist, ErrPermission, ErrCorrupt.
func Remove(key string, opts ...Option) error {
	p, err := locate("remove", key, opts)
	if err != nil {
		return err
	}
	door, err := lockfile.Enter(p.ctx, p.path)
	if err == nil {
		_, err = p.clear(door, true)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("%w; nobody has created it in %s", ErrNotExist, p.dir)
	}
	if err != nil {
		return p.fail(err)
	}
	return nil
}

// clear removes what stands behind the door: garbage, and with force what lives
// too. It leaves the door and reports whether the file is gone.
func (p *place) clear(door *lockfile.Door, force bool) (gone bool, err error) {
	m, half, err := openSegment(p.path, p.key, door.Info())
	switch {
	case half:
		return true, door.Remove()
	case err != nil:
		door.Leave()
		return false, err
	}
	living := m.anyAlive(p.dir, 0)
	switch state := m.state(); {
	case !living || state == stateMaking || state == stateDead:
		return true, m.destroy(p.dir, door)
	case !force && state == stateLive:
		err := door.Leave()
		gone := !m.anyAlive(p.dir, 0) // [look again]
		m.close()
		if err == nil && gone {
			if door, err = lockfile.TryEnter(p.path); err == nil {
				return p.clear(door, force)
			}
		}
		return false, err
	}
	// If we die between the two, the next to come finds it removed, and unlinks.
	fault("removed")
	m.setState(stateRemoved) // [removed]
	fault("unlink removed")
	m.close()
	return true, door.Remove()
}

// Sweep removes what crashes have left in a store: segments that nobody alive is
// attached to, and the presences of the dead. It returns what the segments were.
// Sweep waits for nobody: what somebody is at work on is not garbage.
//
// There is no need to call it: each Create and Attach clears away what is in its
// way, and each Create some of the rest.
func Sweep(opts ...Option) ([]Info, error) {
	dir, names, err := readStore("sweep", opts)
	if err != nil {
		return nil, err
	}
	return sweepNames(dir, names), nil
}

// sweep removes one segment, if it is garbage.
func sweep(dir, name string) (Info, bool) {
	if !keymap.IsName(name) {
		return Info{}, false
	}
	p := place{op: "sweep", dir: dir, path: filepath.Join(dir, name)}
	info, err := inspect(p.path, "")
	if err != nil || info.Status != StatusDead {
		return Info{}, false
	}
	door, err := lockfile.TryEnter(p.path)
	if err != nil {
		return Info{}, false
	}
	gone, err := p.clear(door, false)
	return info, gone && err == nil
}

// How many entries of a store a Create looks at, and how often one does: the
// first of a process, and then now and again.
const (
	sweepEntries = 64
	sweepEvery   = 16
)

var creates atomic.Uint32

// sweepSome removes garbage among the first entries of a store, so that
// leftovers under keys that nobody asks for again do not pile up. Memory file
// systems list the newest first.
func sweepSome(dir string) {
	if creates.Add(1)%sweepEvery != 1 {
		return
	}
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(sweepEntries)
	sweepNames(dir, names)
}

// sweepNames sweeps what has these names. The presences come last: while a slot
// refers to one, it is asked for.
func sweepNames(dir string, names []string) (swept []Info) {
	for _, name := range names {
		if info, ok := sweep(dir, name); ok {
			swept = append(swept, info)
		}
	}
	for _, name := range names {
		if token, ok := lockfile.PresenceToken(name); ok {
			lockfile.Bury(dir, token)
		}
	}
	lockfile.RemoveAside(dir)
	return swept
}
