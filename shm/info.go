package shm

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
)

// Looking at segments from outside, as ipcs does. It changes nothing and waits for
// no process.

// Status says what a segment is to a program that looks at it.
type Status int

const (
	// StatusUnknown: this user may not read the file, or this system does not have
	// the kind of locks that the segment was made with.
	StatusUnknown Status = iota
	// StatusLive: a live process is attached.
	StatusLive
	// StatusDead: no live process is attached. The next create or attach destroys
	// the segment.
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

// An Attachment is one attachment of a live process.
type Attachment struct {
	PID      int // in the process's own namespace: in another container it is another process, or none
	ReadOnly bool
	ID       uint64 // tells it from all others of the segment, also where pids are the same; never 0
}

// Info describes a segment.
type Info struct {
	Key         string // its first 256 bytes, if it is longer
	Name        string // of the file in the store
	Path        string // of the file
	Size        int64  // of the data, in bytes
	UID         uint32 // the owner of the file; 0 on Windows
	Perm        fs.FileMode
	Created     time.Time
	Attached    int          // the number of attachments of live processes
	Attachments []Attachment // those
	Owner       *Attachment  // the owner of the lock; nil if none is alive
	Abandoned   bool         // the last owner of the lock that could write has died while it held it
	Version     uint32
	Status      Status
	ID          uint64 // random: tells a segment from its successor under the same key
	MaxAttached int    // how many attachments there can be
}

// Info describes the segment as Stat does, also one that was removed.
//
// Errors: ErrDetached, and ErrCorrupt if another program has truncated the file to
// nothing.
func (s *Segment) Info() (info Info, err error) {
	if !s.enter() {
		return Info{}, fail("info", s.key, ErrDetached)
	}
	defer s.finishCall("info", debug.SetPanicOnFault(true), &err)
	info = describe(s.head, s.m.slot, s.m.shape, s.m.path, s.m.info, s.m.locks)
	info.Key = s.key
	if info.Status == StatusLive && !s.m.linked() {
		info.Status = StatusRemoved
	}
	return info, nil
}

// ID is this attachment's own among the Attachments of Info. Processes can leave it
// in the memory to say who they are: a pid says nothing in another container, where
// each process may be number 1. It is 0 once detached.
func (s *Segment) ID() uint64 {
	if !s.enter() {
		return 0
	}
	defer s.leave()
	return s.m.attachmentID(s.slot)
}

// Alive reports whether the attachment with this ID, of any process, exists and its
// process is alive. Processes that leave their ID in the memory, say as the owner of
// a part of it, can so find out whether an owner is dead. It is one question to the
// kernel. Alive reports false once s is detached.
func (s *Segment) Alive(id uint64) bool {
	if !s.enter() {
		return false
	}
	defer s.leave()
	i := slotOfID(s.m.shape.id, id)
	return i >= 0 && i < len(s.m.slot) && s.m.attachmentID(i) == id && s.m.taken(i) && s.m.locks.Held(i)
}

func (m *mapping) attachmentID(i int) (id uint64) {
	defer m.ignoreFault(debug.SetPanicOnFault(true))
	return attachmentID(m.shape.id, m.slot[i].Load(), i)
}

// attachmentID tells the attachment in slot i, which holds w, from all others of a
// segment, also from those that had the slot before.
func attachmentID(segment, w uint64, i int) uint64 {
	if id := segment ^ (w>>slotSerial<<16 | uint64(i+1)); id != 0 {
		return id
	}
	return 1
}

// slotOfID returns the slot of the attachment that has this ID, or no slot.
func slotOfID(segment, id uint64) int { return int((segment^id)&0xffff) - 1 }

// Stat describes the segment under key. Only attachments of live processes are
// counted. Stat changes nothing: a dead segment is reported as such.
//
// Errors: ErrKey, ErrNotExist, ErrPermission, ErrCorrupt, ErrNoSpace if the process
// has no descriptor left; errors.ErrUnsupported if this system does not have the
// kind of locks that the segment was made with.
func Stat(key string, opts ...Option) (Info, error) {
	t, err := locate("stat", key, opts, false)
	if err != nil {
		return Info{}, err
	}
	info, err := inspect(t.path, key)
	if errors.Is(err, fs.ErrNotExist) {
		err = t.notExist("no process has created it in %s")
	}
	if err != nil {
		return Info{}, t.fail(err)
	}
	info.Key = key
	return info, nil
}

// List describes all segments of a store, as Stat would each. Other files are left
// out. A store that does not exist is empty.
//
// Errors: ErrPermission, ErrNoSpace if the process has no descriptor left.
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
		case errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported):
			info = unreadable(dir, name)
		case err != nil:
			continue // gone meanwhile, or no segment
		}
		all = append(all, info)
	}
	return all, nil
}

// readStore lists the files of a store.
func readStore(op string, opts []Option) (dir string, names []string, err error) {
	dir, err = keymap.Find(gather(opts).dir)
	var entries []fs.DirEntry
	if err == nil {
		entries, err = os.ReadDir(dir)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil, nil
	}
	if err != nil {
		return "", nil, fail(op, "", err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return dir, names, nil
}

// unreadable describes a file that may not be opened.
func unreadable(dir, name string) Info {
	info := Info{Name: name, Path: filepath.Join(dir, name)}
	if file, err := os.Lstat(info.Path); err == nil {
		info.Size, info.Perm, info.UID, info.Created = file.Size(), file.Mode().Perm(), lockfile.Owner(file), file.ModTime()
	}
	return info
}

// inspect reads and describes the segment in the file at path.
func inspect(path, key string) (Info, error) {
	file, err := lockfile.Open(path, os.O_RDONLY)
	if err != nil {
		if info, look := os.Lstat(path); look == nil && !info.Mode().IsRegular() {
			err = fmt.Errorf("%w: %s is a %v", ErrCorrupt, path, info.Mode().Type())
		}
		return Info{}, err
	}
	defer file.Close()
	c, err := readContents(file, key)
	switch {
	case err == lockfile.ErrNotRegular:
		return Info{}, fmt.Errorf("%w: %s is a %v", ErrCorrupt, path, c.info.Mode().Type())
	case err != nil:
		return Info{}, err
	case c.half:
		return halfMade(path, c.info), nil
	}
	page, h := headerBuffer(c.dataOff)
	if _, err := file.ReadAt(page[1:], 1); err != nil {
		return Info{}, err
	}
	locks, err := lockfile.NewSlots(file, c.locks, c.slots, c.shape.id)
	if err != nil {
		return Info{}, err
	}
	defer locks.Close()
	return describe(h, slotsAt(page, c.slots), c.shape, path, c.info, locks), nil
}

// halfMade describes what a creator has left that died before the file was a
// segment.
func halfMade(path string, file fs.FileInfo) Info {
	return Info{Name: filepath.Base(path), Path: path, UID: lockfile.Owner(file), Perm: file.Mode().Perm(),
		Created: file.ModTime(), Status: StatusDead}
}

// describe describes the garbage that this process has mapped.
func (m *mapping) describe() (info Info) {
	defer m.ignoreFault(debug.SetPanicOnFault(true))
	info = halfMade(m.path, m.info)
	return describe(m.head, m.slot, m.shape, m.path, m.info, m.locks)
}

// describe puts together what a header, its slots and their locks say.
func describe(h *header, slots []slot, s shape, path string, file fs.FileInfo, locks *lockfile.Slots) Info {
	info := halfMade(path, file)
	info.Key = h.storedKey()
	info.Size = int64(s.size)
	if size := h.size.Load(); size < math.MaxInt64 {
		info.Size = max(info.Size, int64(size))
	}
	info.ID, info.MaxAttached = s.id, s.slots
	info.Created = time.Unix(0, s.created)
	w := h.word.Load()
	info.Version = version(w)
	for i := range slots {
		entry := slots[i].Load()
		if entry&slotTaken == 0 || !locks.Held(i) {
			continue
		}
		a := Attachment{PID: int(entry & slotPID), ReadOnly: entry&slotReadOnly != 0, ID: attachmentID(s.id, entry, i)}
		info.Attachments = append(info.Attachments, a)
		if ownerSlot(w) == i {
			info.Owner = &a
		}
	}
	info.Attached = len(info.Attachments)
	info.Abandoned = w&abandonedBit != 0 || w&ownerMask != 0 && info.Owner == nil
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
