package shm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
)

// This file is the life of a segment: from nothing to live, to garbage, to
// nothing. The steps named in brackets are those of test/models/lifetime.pml.
//
// Creating, attaching and destroying happen inside the door. A segment is
// garbage if it is not live, or if no process that is attached is alive; whoever
// finds garbage while it is about to create or attach destroys it, and goes on
// as if there had been nothing.

// place is where a key leads.
type place struct {
	op, key   string
	dir, path string
	options
}

func locate(op, key string, opts []Option) (place, error) {
	p := place{op: op, key: key, options: gather(opts)}
	if key == "" {
		return p, p.fail(fmt.Errorf("%w: it is empty", ErrKey))
	}
	dir, err := keymap.Dir(p.options.dir)
	if err != nil {
		return p, p.fail(err)
	}
	p.dir, p.path = dir, filepath.Join(dir, keymap.Name(key))
	return p, nil
}

func (p *place) fail(err error) error { return fail(p.op, p.key, err) }

// open attaches to the segment, or creates it, as far as it may do each.
func (p *place) open(size int, mayCreate, mayAttach bool) (seg *Segment, created bool, err error) {
	var want shape
	if mayCreate {
		if want, err = newShape(size, p.slots); err != nil {
			return nil, false, p.fail(err)
		}
	}
	if a, err := p.share(mayAttach); a != nil || err != nil {
		if err != nil {
			return nil, false, p.fail(err)
		}
		seg, err := p.finish(a, false)
		if !mayCreate || !errors.Is(err, fs.ErrNotExist) {
			return seg, false, err
		}
		// Removed by now: make another.
	}
	if mayCreate && !mayAttach { // most often there is nothing
		if seg, err := p.create(want); !errors.Is(err, fs.ErrExist) {
			return seg, err == nil, err
		}
	}
	for start := time.Now(); ; {
		door, err := lockfile.Enter(p.ctx, p.path)
		for errors.Is(err, fs.ErrPermission) && unfinished(p.path) && time.Since(start) < doorPatience {
			// Another user is about to make it, and has not come to give it the
			// permissions that Perm asks for.
			time.Sleep(time.Millisecond)
			door, err = lockfile.Enter(p.ctx, p.path)
		}
		switch {
		case err == nil && mayCreate && fillsEmpty && door.Info().Size() == 0:
			seg, err := p.createInside(door, want)
			return seg, err == nil, err
		case err == nil:
			if seg, err = p.attachInside(door, mayAttach); seg != nil || err != nil {
				return seg, false, err
			}
			// It was garbage, and is no more.
		case !errors.Is(err, fs.ErrNotExist):
			return nil, false, p.fail(err)
		case !mayCreate:
			return nil, false, p.fail(fmt.Errorf("%w; nobody who is running has created it in %s", ErrNotExist, p.dir))
		default:
			seg, err := p.create(want)
			if errors.Is(err, fs.ErrExist) {
				continue // somebody was faster
			}
			return seg, err == nil, err
		}
		if !mayCreate {
			return nil, false, p.fail(fmt.Errorf("%w; all who were attached in %s have ended", ErrNotExist, p.dir))
		}
	}
}

// unfinished reports whether the file at path is only about to be a segment. One
// that has gone by now was: there is another look to take.
func unfinished(path string) bool {
	info, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist) || err == nil && info.Size() == 0
}

func exists(m *mapping) error {
	return fmt.Errorf("%w, created %s; attach to it, or remove it to start anew",
		ErrExist, time.Unix(0, m.created).Format(time.DateTime))
}

// attachInside attaches to the file behind the door, and leaves. If what stands
// there is garbage, it destroys that and returns nothing.
func (p *place) attachInside(door *lockfile.Door, mayAttach bool) (*Segment, error) {
	m, half, err := openSegment(p.path, p.key, door.Info())
	if half {
		return nil, p.failed(door.Remove())
	}
	if err != nil {
		door.Leave()
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil
		}
		return nil, p.fail(err)
	}
	living := m.state() == stateLive && m.anyAlive(p.dir, 0)
	switch {
	case !living: // [garbage]
		err = p.failed(m.destroy(p.dir, door))
	case !mayAttach:
		err = p.fail(exists(m))
		door.Leave()
		if !m.anyAlive(p.dir, 0) { // [look again]
			err = nil
		}
		m.close()
	default:
		// The living one may die or detach from here on. The door keeps the
		// file: a detacher that is the last looks again inside.
		h, err := enterHome(p.dir)
		if err != nil {
			m.close()
			door.Leave()
			return nil, p.fail(err)
		}
		a, err := h.adopt(m, p.readOnly) // [claim]
		door.Leave()
		if err != nil {
			return nil, p.fail(err)
		}
		// Outside: if it fails, this may be the last to detach. The others have
		// seen its slot.
		seg, err := p.finish(a, false)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // removed by now
		}
		return seg, err
	}
	return nil, err
}

func (p *place) failed(err error) error {
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return p.fail(err)
}

// finish makes a Segment of an attachment, or ends it. inside tells that the
// caller is inside the door, to create the segment: it is live then.
func (p *place) finish(a *attachment, inside bool) (*Segment, error) {
	fault("map data")
	data, err := a.m.data(p.readOnly)
	a.m.settle()
	if err == nil && inside {
		fault("live")
		err = a.m.setState(stateLive) // [live]
		fault("created")
	}
	if err != nil {
		a.end(inside)
		return nil, p.fail(err)
	}
	return newSegment(p, a, data), nil
}

// create makes a new segment. It reports fs.ErrExist if a file is there by now.
//
// If the creator dies after [make], the file is empty; after [write], it is in
// the state making: garbage both. So it is in the end without [claim]; and with
// it, as long as the state is not live.
func (p *place) create(want shape) (seg *Segment, err error) {
	fault("make")
	door, err := lockfile.Make(p.path, p.perm) // [make]
	if errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	if err != nil {
		return nil, p.fail(err)
	}
	return p.createInside(door, want)
}

// createInside makes a segment of the empty file behind the door.
func (p *place) createInside(door *lockfile.Door, want shape) (seg *Segment, err error) {
	sweepSome(p.dir) // before memory is needed
	h, err := enterHome(p.dir)
	if err != nil {
		door.Remove()
		return nil, p.fail(err)
	}
	fault("build")
	m, err := p.build(want, door)
	if err != nil {
		door.Remove()
		h.leave()
		return nil, p.fail(err)
	}
	a, err := h.adopt(m, p.readOnly) // [claim]
	if err == nil {
		seg, err = p.finish(a, true)
	}
	if err != nil {
		door.Remove()
		return nil, p.fail(err)
	}
	if err := p.failed(door.Leave()); err != nil {
		seg.Close()
		return nil, err
	}
	return seg, nil
}

// build gives the new file its header and its memory.
func (p *place) build(want shape, door *lockfile.Door) (m *mapping, err error) {
	file, err := lockfile.Open(p.path, os.O_RDWR)
	if err != nil {
		return nil, err
	}
	defer func() {
		if m == nil {
			file.Close()
		}
	}()
	info := door.Info()
	if p.perm&0o077 != 0 { // what the umask took away was asked for
		fault("chmod")
		if err := file.Chmod(p.perm); err != nil {
			return nil, err
		}
		if info, err = file.Stat(); err != nil {
			return nil, err
		}
	}
	want.created = time.Now().UnixNano()
	if want.id, err = randomID(); err != nil {
		return nil, err
	}
	fault("write")
	if _, err := file.WriteAt(want.fresh(p.key)[1:], 1); err != nil { // [write]
		return nil, noSpace(err, p.dir, int64(want.dataOff)+int64(want.size))
	}
	if err := p.allocate(file, int64(want.dataOff), int64(want.dataOff)+int64(want.size)); err != nil { // [allocate]
		return nil, err
	}
	fault("map header")
	return newMapping(file, p.path, info, want)
}

// allocate gives the file its size and its memory, of which a sparse one has the
// header only: what is not there must be found missing here, and not by a fault
// later.
func (p *place) allocate(file *os.File, header, total int64) error {
	fault("allocate")
	if p.sparse {
		if err := allocate(file, 0, header); err != nil {
			return noSpace(err, p.dir, header)
		}
		return file.Truncate(total)
	}
	if total > allocateStep {
		if free, _, ok := space(p.dir); ok && total > free {
			return noSpace(syscall.ENOSPC, p.dir, total) // do not fill up what others need to find that out
		}
	}
	for off := int64(0); off < total; off += allocateStep {
		if err := p.ctx.Err(); err != nil {
			return err
		}
		if err := allocate(file, off, min(allocateStep, total-off)); err != nil {
			return noSpace(err, p.dir, total)
		}
	}
	return nil
}

// allocateStep bounds how long an allocation goes on after the context's end,
// and makes progress where signals interrupt the system call.
const allocateStep = 64 << 20

// noSpace adds to an error what a person needs to know: how much was asked for,
// how much is free, and where.
func noSpace(err error, dir string, asked int64) error {
	if classify(err) != ErrNoSpace {
		return err
	}
	if free, total, ok := space(dir); ok {
		return fmt.Errorf("%w: %d bytes asked for, %d of %d free in %s; make room there, or set %s to another store: %w",
			ErrNoSpace, asked, free, total, dir, keymap.EnvDir, err)
	}
	return fmt.Errorf("%w: %d bytes asked for in %s; make room there, or set %s to another store: %w",
		ErrNoSpace, asked, dir, keymap.EnvDir, err)
}

// doorPatience is how long a last detach waits for the door. Who is inside that
// long has been stopped there. Either it is about to attach, and then it is the
// last; or it looks again when it has left the door, and finds garbage.
const doorPatience = time.Second

// last destroys the segment if it is still at its path, and nobody has attached
// meanwhile.
func (h *home) last(m *mapping) error {
	fault("enter to look again")
	for start := time.Now(); ; {
		door, err := lockfile.TryEnter(m.path)
		if errors.Is(err, lockfile.ErrInside) {
			door, err = enterBy(start.Add(doorPatience), m.path)
		}
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return nil
		case errors.Is(err, fs.ErrNotExist):
			m.close()
			return lockfile.RemoveAside(h.dir) // removed: the memory goes with the mapping
		case err != nil:
			return err
		case !os.SameFile(door.Info(), m.info): // removed, and somebody has made another
			m.close()
			if err := door.Leave(); err != nil {
				return err
			}
			return lockfile.RemoveAside(h.dir)
		case !m.anyAlive(h.dir, 0): // [scan again]
			return m.destroy(h.dir, door)
		}
		// The one who is alive may have gone, and given up waiting for our door.
		if err := door.Leave(); err != nil || m.anyAlive(h.dir, 0) { // [look again]
			return err
		}
	}
}

func enterBy(deadline time.Time, path string) (*lockfile.Door, error) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	return lockfile.Enter(ctx, path)
}

// destroy removes a segment that nobody alive is attached to, with the presences
// of the dead that it refers to.
func (m *mapping) destroy(dir string, door *lockfile.Door) error {
	m.condemn()
	fault("reap all")
	m.reap(dir, 0, true)
	m.close()
	fault("unlink")
	return door.Remove() // [unlink]
}

func (m *mapping) condemn() {
	fault("dead")
	if m.state() != stateRemoved { // who removed it died before the file was gone: others may go on
		m.setState(stateDead) // [dead]
	}
}
