package shm

import (
	"fmt"
	"os"
	"runtime/debug"

	"qshm/lockfile"
)

// This file is about slots: who is attached to a segment, and who of them lives.

// attachment is one slot of a segment that this process has taken.
type attachment struct {
	h   *home
	m   *mapping
	i   int    // the slot
	gen uint32 // tells it from those who had the slot before
}

// attach takes a slot; inside tells that the caller is inside the door. The
// caller holds process and, on behalf of the attachment, one use of h; both that
// and m are given back if there is no slot.
func (h *home) attach(m *mapping, readOnly, inside bool) (*attachment, error) {
	m.users++
	a := &attachment{h: h, m: m}
	if err := a.claim(readOnly, inside); err != nil {
		if a.drop() {
			m.close()
		}
		h.left()
		return nil, err
	}
	return a, nil
}

// claim takes a slot; inside the door one of a dead process, if it has to.
//
// Outside, it takes only a slot above one that this process has. Others look for
// somebody alive from the first slot upwards: if a slot could be taken behind
// their backs, and the one given back that they have not come to yet, they would
// find nobody, and destroy the segment of a process that is attached.
//
// refs counts up first and down last: a crash in between leaves it too high,
// never too low, so that a zero can be relied upon. A fault does so too, if it is
// the rest of a long header that was cut off.
func (a *attachment) claim(readOnly, inside bool) (err error) {
	defer a.m.report(debug.SetPanicOnFault(true), &err)
	own, mode := a.h.presence.Token(), uint16(0)
	if readOnly {
		mode = modeReadOnly
	}
	fault("count up")
	a.m.head.refs.Add(1)
	fault("claim")
	for {
		mayTake := inside
		for i := range a.m.slot {
			s := &a.m.slot[i]
			switch token := s.token.Load(); {
			case token == own:
				mayTake = true
			case token == 0 && mayTake && s.token.CompareAndSwap(0, own):
				fault("claimed")
				a.i, a.gen = i, (metaGen(s.meta.Load())+1)&genMask
				s.meta.Store(packMeta(os.Getpid(), a.gen, mode))
				return nil
			}
		}
		if inside {
			if _, dead := a.m.reap(a.h.dir, own, true); dead > 0 {
				continue
			}
		}
		a.m.head.refs.Add(^uint32(0))
		return fmt.Errorf("%w: all %d attachments are taken; create the segment with MaxAttachments", ErrNoSpace, a.m.slots)
	}
}

// drop gives back one use of the mapping, for a caller that holds process. It
// reports whether it was the last one: then the mapping is the caller's, to close.
func (a *attachment) drop() bool {
	if a.m.users--; a.m.users > 0 {
		return false
	}
	if a.h.maps[a.m.path] == a.m {
		delete(a.h.maps, a.m.path)
	}
	return true
}

// end gives the slot back, and with the last one that is alive destroys the
// segment, unless the caller is inside the door and will do so. The lock is not
// held any more.
//
// No door is needed to give a slot back. Of several who do so at once, the one
// who looks around last finds that nobody is left: it is enough that each looks
// after it has given back. If one dies in between, the segment is garbage.
func (a *attachment) end(inside bool) error {
	process.Lock()
	a.clear()
	last := a.drop()
	process.Unlock()

	var err error
	if last {
		fault("scan")
		if !inside && !a.m.inUse(a.h.dir) { // [scan]
			err = a.h.last(a.m)
		}
		a.m.close()
	}
	if gone := a.h.leave(); err == nil {
		err = gone
	}
	return err
}

// clear gives the slot back.
func (a *attachment) clear() {
	defer a.m.survive(debug.SetPanicOnFault(true))
	fault("clear")
	// Not ours any more, if somebody took our presence for gone: see enterHome.
	if a.m.slot[a.i].token.CompareAndSwap(a.h.presence.Token(), 0) { // [clear]
		fault("count down")
		a.m.head.refs.Add(^uint32(0))
	}
}

// inUse reports whether a process that is attached is alive. A count of zero says
// that without a look at the slots.
func (m *mapping) inUse(dir string) bool {
	defer m.survive(debug.SetPanicOnFault(true))
	return m.head.refs.Load() > 0 && m.anyAlive(dir, 0)
}

// anyAlive reports whether a process that is attached is alive. It stops at the
// first one, so that it costs the same with many.
func (m *mapping) anyAlive(dir string, own uint64) bool {
	living, _ := m.reap(dir, own, false)
	return living > 0
}

// reap gives back the slots of the dead. It says how many slots of the living
// and of the dead it has seen, and unless it is to see all, stops at a living
// one. own is this process's token, if it has one.
func (m *mapping) reap(dir string, own uint64, all bool) (living, dead int) {
	defer m.survive(debug.SetPanicOnFault(true))
	known := own // alive; the attachments of one process often stand together
	for i := range m.slot {
		token := m.slot[i].token.Load()
		if token == 0 {
			continue
		}
		if token == known || lockfile.Alive(dir, token) {
			known = token
			if living++; !all {
				return living, dead
			}
			continue
		}
		// The lock first [disown]: a word never names a slot that is free, so
		// whoever dies here leaves a slot that is still a dead one's.
		//
		// The generation is the dead one's only if the slot still is: another
		// reaper may have given it back, and somebody taken it and the lock.
		gen := metaGen(m.slot[i].meta.Load())
		if m.slot[i].token.Load() != token {
			dead++
			continue
		}
		fault("disown")
		m.head.disown(ownerBits(i, gen))
		fault("bury")
		lockfile.Bury(dir, token)
		fault("reap")
		if m.slot[i].token.CompareAndSwap(token, 0) {
			fault("reaped")
			m.head.refs.Add(^uint32(0))
		}
		dead++
	}
	return living, dead
}
