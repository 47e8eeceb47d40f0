package shm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime/debug"
	"syscall"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
	"qshm/shm/internal/alloc"
	"qshm/shm/internal/failpoint"
)

// The life of a segment: it is created, attached to, becomes garbage, and is
// destroyed. The steps in brackets are those of test/models/lifetime.pml.
//
// Creating, attaching and destroying happen with the file lock held. A segment is
// garbage if it is not live, or if no live process is attached. A call that finds
// garbage where it is about to create or attach destroys it and goes on as if
// there had been nothing.

// target is what a call is about: a key, and where its file is.
type target struct {
	op, key   string
	dir, path string
	options

	replaced   *Info // the garbage that this call has destroyed
	adoptEmpty bool  // an empty file cannot be removed: make the segment in it
}

// locate finds the store and the path of a key. Only a call that may create makes
// the store.
func locate(op, key string, opts []Option, mayCreate bool) (*target, error) {
	t := &target{op: op, key: key, options: gather(opts)}
	if key == "" {
		return nil, t.fail(fmt.Errorf("%w: it is empty", ErrKey))
	}
	if t.perm&0o600 != 0o600 {
		return nil, t.fail(fmt.Errorf("%w: Perm(%#o) keeps the creator itself from attaching; it has at least 0600", ErrPermission, t.perm))
	}
	find := keymap.Find
	if mayCreate {
		find = keymap.Make
	}
	dir, err := find(t.options.dir)
	switch {
	case errors.Is(err, fs.ErrNotExist) && mayCreate:
		return nil, t.fail(fmt.Errorf("the store cannot be made: %v", err)) // not ErrNotExist: that is about segments
	case errors.Is(err, fs.ErrNotExist):
		return nil, t.fail(fmt.Errorf("%w: there is no store: %s", ErrNotExist, pathIn(err)))
	case err != nil:
		return nil, t.fail(err)
	}
	t.dir, t.path = dir, filepath.Join(dir, keymap.Name(key))
	return t, nil
}

func (t *target) fail(err error) error {
	return fail(t.op, t.key, explain(err, t.path))
}

// open attaches to the segment or creates it, as far as it may do each.
func (t *target) open(size int, mayCreate, mayAttach bool) (*Segment, bool, error) {
	var want shape
	var err error
	if mayCreate {
		if want, err = newShape(t.key, size, t.slots); err != nil {
			return nil, false, t.fail(err)
		}
	}
	if seg, err := t.attachAgain(mayAttach); seg != nil || err != nil {
		return seg, false, err
	}
	create := mayCreate && !mayAttach // most often there is no file: try that first
	for {
		var f *lockfile.File
		if create {
			failpoint.At("create_file")
			f, err = lockfile.Create(t.path, t.perm) // [create_file] [file_lock] [still_linked]
		} else {
			f, err = t.lock()
		}
		switch {
		case create && errors.Is(err, fs.ErrExist):
			if c, ok := t.inUse(); ok && !mayAttach {
				return nil, false, t.fail(exists(c.created))
			}
			create = false
			continue
		case !create && mayCreate && errors.Is(err, fs.ErrNotExist):
			create = true
			continue
		case errors.Is(err, fs.ErrNotExist) && !create:
			return nil, false, t.fail(t.notExist("no process has a segment of this key in %s; create it first, or use Open"))
		case err != nil:
			return nil, false, t.fail(err)
		}
		failpoint.At("examine")
		seg, created, err := t.enter(f, want, create, mayCreate, mayAttach)
		switch {
		case err != nil:
			return nil, false, t.fail(err)
		case seg != nil:
			seg.replaced = t.replaced
			return seg, created, nil
		case !mayCreate && t.replaced != nil:
			return nil, false, t.fail(t.notExist("every process that was attached in %s has exited"))
		case !mayCreate:
			return nil, false, t.fail(t.notExist("its file in %s was not finished, or was truncated"))
		}
	}
}

// inUse reports whether a live segment is at the path to which a process is attached.
// It does not need the file lock: state and slot locks are looked at in this order.
func (t *target) inUse() (c contents, ok bool) {
	file, err := lockfile.Open(t.path, os.O_RDONLY)
	if err != nil {
		return c, false
	}
	if c, err = readContents(file, t.key); err == nil && c.live {
		if locks, err := lockfile.NewSlots(file, c.locks, c.slots, c.shape.id); err == nil {
			defer locks.Close()
			return c, locks.Atomic() && locks.OthersHold(nil)
		}
	}
	file.Close()
	return c, false
}

func (t *target) notExist(format string) error {
	return fmt.Errorf("%w: "+format, ErrNotExist, t.dir)
}

// lock takes the file lock of the file at the path.
func (t *target) lock() (f *lockfile.File, err error) {
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		f, err = lockfile.Lock(t.ctx, t.path) // [open] [file_lock] [still_linked]
		if !errors.Is(err, fs.ErrPermission) || !unfinished(t.path) || time.Since(start) > detachPatience {
			return f, err
		}
		// Another user is creating the segment and has not given the file the
		// permissions that Perm asks for.
	}
}

// unfinished reports whether the file at path is empty or gone.
func unfinished(path string) bool {
	info, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
}

// attachAgain attaches to a segment that this process is attached to already, if
// that is what the path leads to. The other attachment keeps the segment alive,
// and cannot end meanwhile because that takes process too: so the file lock is
// not needed. It is needed where whether anybody is attached is not one question:
// a scan could miss a slot that is claimed behind it.
//
// If that is not possible, attachAgain returns nothing.
func (t *target) attachAgain(mayAttach bool) (*Segment, error) {
	process.Lock()
	defer process.Unlock()
	if len(process.mappings) == 0 {
		return nil, nil
	}
	id, err := lockfile.Identify(t.path)
	if err != nil {
		return nil, nil
	}
	m := process.mappings[id]
	if m == nil || filepath.Base(m.path) != filepath.Base(t.path) || m.state() != stateLive {
		return nil, nil
	}
	if !mayAttach {
		return nil, t.fail(exists(m.created))
	}
	if !m.locks.Atomic() {
		return nil, nil
	}
	if _, err := m.view(t.readOnly); err != nil {
		return nil, nil
	}
	i, err := m.claim(t.readOnly)
	if err != nil {
		return nil, nil
	}
	m.users++
	return newSegment(t, m, i), nil
}

func exists(created int64) error {
	return fmt.Errorf("%w, created %s; attach to it, or remove it to start anew",
		ErrExist, time.Unix(0, created).Format(time.DateTime))
}

// enter creates the segment in the file whose lock f is held, or attaches to it,
// and releases f. If the file is garbage, enter destroys it and returns nothing.
//
// An empty file is adopted: its creator has died, or has not taken the file lock in
// time. But not another user's, which may have other permissions than this call asks
// for; unless it cannot be removed.
func (t *target) enter(f *lockfile.File, want shape, created, mayCreate, mayAttach bool) (*Segment, bool, error) {
	if mayCreate && f.Info().Size() == 0 && (created || t.adoptEmpty || int(lockfile.Owner(f.Info())) == max(os.Geteuid(), 0)) {
		if !created && t.truncated() {
			return nil, false, t.discard(f, false)
		}
		seg, err := t.createIn(f, want)
		return seg, err == nil, err
	}
	m, half, err := openMapping(f, t.key, t.readOnly)
	used := m != nil && m.inUse() // [ask]
	switch {
	case half:
		lockfile.RemoveSiblings(t.path)
		return nil, false, t.discard(f, true)
	case err != nil:
		f.Unlock()
		if errors.Is(err, fs.ErrNotExist) { // the file was replaced: look again
			err = nil
		}
		return nil, false, err
	case m.state() != stateLive || !used: // [examine]
		info := m.describe()
		t.replaced = &info
		return nil, false, t.destroy(m, f, !used)
	case !mayAttach:
		err := exists(m.created)
		return nil, false, errors.Join(err, t.lookAgain(m, f))
	}
	return t.attachIn(f, m)
}

// truncated reports whether the empty file is a segment that another program has
// truncated: processes are attached to it, and keep it.
func (t *target) truncated() bool {
	file, err := lockfile.Open(t.path, os.O_RDWR)
	if err != nil {
		return false
	}
	locks, err := lockfile.NewSlots(file, lockfile.KindFor(file), maxSlots, 0)
	if err != nil {
		file.Close()
		return false
	}
	defer locks.Close()
	return locks.OthersHold(func(int) bool { return false })
}

// attachIn attaches to the live segment whose file lock f is held.
func (t *target) attachIn(f *lockfile.File, m *mapping) (*Segment, bool, error) {
	m, i, err := m.register(t.readOnly, false)
	if err != nil {
		return nil, false, errors.Join(err, t.lookAgain(m, f))
	}
	_, err = m.view(t.readOnly)
	failpoint.At("unlock_file")
	if unlock := f.Unlock(); err == nil { // [unlock_file]
		err = unlock
	}
	if err != nil {
		return nil, false, errors.Join(err, m.detach(i))
	}
	return newSegment(t, m, i), false, nil
}

// lookAgain releases the file lock after a call that has neither attached nor
// destroyed, and destroys the segment if it is garbage by now: the last process
// to detach may have given up waiting for the file lock.
func (t *target) lookAgain(m *mapping, f *lockfile.File) error {
	failpoint.At("unlock_file")
	err := f.Unlock()
	process.Lock()
	unused := process.mappings[m.id] != m
	process.Unlock()
	if !unused {
		return err
	}
	if err == nil {
		err = m.destroyIfUnused() // [look_again]
	}
	m.close()
	return err
}

// createIn makes a segment in the empty file whose lock f is held.
//
// If the creator dies, the file is empty or its state is making: both are
// garbage. If creating fails, or Init panics, the file is removed.
func (t *target) createIn(f *lockfile.File, want shape) (seg *Segment, err error) {
	var m *mapping
	i := -1
	defer func() {
		if seg != nil {
			return
		}
		if i >= 0 {
			m.leave(i)
		}
		if m != nil {
			m.locks.RemoveSiblings()
			m.close()
		}
		t.discard(f, true)
	}()
	sweepSome(t.dir) // before memory is needed
	if m, err = t.build(f, want); err != nil {
		return nil, err
	}
	slot := 0
	if m, slot, err = m.register(t.readOnly, true); err != nil { // [claim] [refs_up] [publish]
		return nil, err
	}
	i = slot
	if _, err := m.view(t.readOnly); err != nil {
		return nil, err
	}
	if t.init != nil {
		failpoint.At("init")
		if err := t.runInit(m); err != nil { // [init]
			return nil, err
		}
	}
	failpoint.At("live")
	if err := m.setState(stateLive); err != nil { // [live]
		return nil, err
	}
	failpoint.At("unlock_file")
	if err := f.Unlock(); err != nil { // [unlock_file]
		return nil, err
	}
	return newSegment(t, m, i), nil
}

// runInit calls the function of Init with memory that can be written, whatever the
// attachment.
func (t *target) runInit(m *mapping) (err error) {
	data, err := m.view(false)
	if err != nil {
		return err
	}
	defer m.reportFault(debug.SetPanicOnFault(true), &err)
	return t.init(*data.Load())
}

// build gives the empty file its header and its memory, and maps it.
func (t *target) build(f *lockfile.File, c shape) (m *mapping, err error) {
	file, err := lockfile.Open(t.path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() {
		if m == nil {
			file.Close()
		}
	}()
	if f.Info().Mode().Perm() != t.perm && !t.adoptEmpty { // what the umask took away was asked for
		failpoint.At("chmod")
		if err := file.Chmod(t.perm); err != nil {
			return nil, err
		}
	}
	c.created = time.Now().UnixNano()
	c.id = rand.Uint64()
	c.locks = lockfile.KindFor(file)
	total := int64(c.dataOff) + int64(c.size)
	failpoint.At("write_header")
	if _, err := file.WriteAt(c.fresh(t.key)[1:], 1); err != nil { // [write_header]
		return nil, noSpace(err, t.dir, total)
	}
	if err := t.allocate(file, int64(c.dataOff), total); err != nil { // [allocate]
		return nil, err
	}
	info, id, err := lockfile.Stat(file)
	if err != nil {
		return nil, err
	}
	failpoint.At("map")
	return newMapping(file, t.path, contents{shape: c, info: info, file: id}, t.readOnly) // [map]
}

// allocate gives the file its size and its memory. A sparse segment has memory for
// the header only.
func (t *target) allocate(file *os.File, header, total int64) error {
	failpoint.At("allocate")
	if !t.sparse {
		return allocate(t.ctx, file, t.dir, 0, total)
	}
	if err := alloc.Allocate(file, 0, header); err != nil {
		return noSpace(err, t.dir, header)
	}
	return file.Truncate(total)
}

const (
	// allocateStep bounds how long an allocation goes on after the end of the
	// context, and makes progress where signals interrupt the system call.
	allocateStep = 64 << 20
	// askAvailable is from which size on the question what is available costs
	// nothing beside the allocation.
	askAvailable = 4 << 20
)

// allocate makes sure that memory stands behind length bytes of the file from off
// on. What is missing must be found here, and not by a fault later, or by the
// system's killing the process. On an error the file may be longer than before.
func allocate(ctx context.Context, file *os.File, dir string, off, length int64) error {
	if length > askAvailable {
		if free, _, ok := alloc.Available(dir); ok && length > free {
			return noSpace(syscall.ENOSPC, dir, length)
		}
	}
	for end := off + length; off < end; off += allocateStep {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := alloc.Allocate(file, off, min(allocateStep, end-off)); err != nil {
			return noSpace(err, dir, length)
		}
	}
	return nil
}

// noSpace adds to an error what a person needs to know: how much was asked for,
// how much is free, and where.
func noSpace(err error, dir string, asked int64) error {
	if classify(err) != ErrNoSpace {
		return err
	}
	reason := err
	if path := (*fs.PathError)(nil); errors.As(err, &path) {
		reason = path.Err // the path is in dir
	}
	free, total, ok := alloc.Available(dir)
	figures := ""
	if ok {
		figures = fmt.Sprintf("; %d of %d are free", free, total)
	}
	return fmt.Errorf("%w: %d bytes asked for in %s%s; make room there, or set %s to another store: %w",
		ErrNoSpace, asked, dir, figures, keymap.EnvDir, reason)
}

// detach ends the attachment in slot i, whose process does not hold the segment's
// lock any more. The last live process destroys the segment.
//
// The slot is cleared without the file lock. Each process asks after its slot is
// free, so the last one to ask finds that no process is left. If it dies before
// that, the segment is garbage.
func (m *mapping) detach(i int) error {
	if !m.leave(i) {
		return nil
	}
	defer m.close()
	return m.destroyIfUnused()
}

// detachPatience is how long the last process to detach waits for the file lock.
// A process that holds it longer is stopped. It is about to attach, and then it is
// the last; or it looks again when it has released the file lock.
const detachPatience = time.Second

// destroyIfUnused destroys the segment if no process is attached, and the file is
// still at its path. The caller has no attachment any more, and closes m.
func (m *mapping) destroyIfUnused() error {
	for !m.inUse() {
		failpoint.At("file_lock_last")
		ctx, cancel := context.WithTimeout(context.Background(), detachPatience)
		f, err := lockfile.Lock(ctx, m.path) // [file_lock_last] [still_linked_last]
		cancel()
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case errors.Is(err, fs.ErrNotExist) || err == nil && !m.isIn(f):
			// The segment was removed; its memory goes with the mapping.
			m.locks.RemoveSiblings()
			m.close()
			if f != nil {
				f.Unlock()
			}
			return lockfile.RemoveAside(filepath.Dir(m.path))
		case err != nil:
			return err
		}
		failpoint.At("ask_again")
		if !m.inUse() { // [ask_again]
			t := target{path: m.path}
			return t.destroy(m, f, true)
		}
		if err := f.Unlock(); err != nil { // and [look_again]
			return err
		}
	}
	return nil
}

// isIn reports whether the file whose lock f is held is the segment's. It may have
// been emptied and have a successor in it: sibling files do not show that.
func (m *mapping) isIn(f *lockfile.File) (same bool) {
	same = os.SameFile(f.Info(), m.info)
	defer m.ignoreFault(debug.SetPanicOnFault(true)) // without a header it is the segment's
	return same && m.head.id == m.shape.id
}

// destroy removes the segment of a file whose lock f is held, and closes m. It is
// unused, unless a Remove has died before it had removed the file.
func (t *target) destroy(m *mapping, f *lockfile.File, unused bool) error {
	failpoint.At("dead")
	if unused {
		m.setState(stateDead) // [dead]
	}
	m.locks.RemoveSiblings()
	m.close()
	return t.discard(f, unused)
}

// discard removes a file that is no segment any more, and releases its file lock.
// Where the directory does not allow that (another user's file in a sticky
// directory), discard takes the memory of an unused file away instead; the next
// creator makes its segment in the empty file.
func (t *target) discard(f *lockfile.File, unused bool) error {
	failpoint.At("unlink")
	err := f.Remove() // [unlink]
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) && unused {
		t.adoptEmpty = true
		err = empty(f)
	}
	f.Unlock()
	return err
}

// empty truncates the file whose lock f is held. No process is attached to it.
func empty(f *lockfile.File) error {
	file, err := lockfile.Open(f.Path(), os.O_RDWR)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err == nil && os.SameFile(info, f.Info()) {
		err = file.Truncate(0)
	}
	return err
}
