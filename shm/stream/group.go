package stream

import (
	"fmt"

	"qshm/shm"
	"qshm/shm/internal/failpoint"
)

// joinGroup finds the group of a name, or makes it. The caller holds the lock, so that
// no two groups have one name.
func (s *Stream) joinGroup(name string, start, head uint64) (int, error) {
	h := s.ring
	free, empty := -1, -1
	for i := range h.groups {
		g := &h.groups[i]
		switch {
		case g.used.Load() == 0:
			free = i
		case g.title() == name:
			s.awaken(i, head)
			return i, nil
		case s.empty(i):
			empty = i
		}
	}
	if free < 0 {
		free = empty
	}
	if free < 0 {
		return 0, fmt.Errorf("%w: a stream has at most %d groups with members", shm.ErrNoSpace, maxGroups)
	}
	g := &h.groups[free]
	g.used.Store(0)
	failpoint.At("stream_group")
	g.nameLen = uint32(copy(g.name[:], name))
	g.word.Store(groupWord(start, noCursor))
	g.idle.Store(0)
	g.used.Store(1) // [group]
	h.floor.Store(min(h.floor.Load(), start))
	return free, nil
}

// title returns the name of a group.
func (g *group) title() string { return string(g.name[:min(g.nameLen, maxGroupName)]) }

// empty reports whether a group has no members and no message to deliver again.
func (s *Stream) empty(i int) bool {
	for j := range s.ring.cursors {
		c := &s.ring.cursors[j]
		if c.mode.Load() == uint32(modeGroup+i) && c.owner.Load() != 0 {
			return false
		}
	}
	return true
}

// awaken lets a group go on that may have had no live member: writers may have
// overwritten what it has not taken. Then none of its members is at work.
func (s *Stream) awaken(i int, head uint64) {
	h := s.ring
	g := &h.groups[i]
	for j := range h.cursors {
		c := &h.cursors[j]
		at, id := c.pos.Load(), c.owner.Load()
		if c.mode.Load() == uint32(modeGroup+i) && id != 0 && at != 0 && int64(head-memberPos(at)) > 0 && !s.seg.Alive(id) {
			c.owner.CompareAndSwap(id, 0)
		}
	}
	if w := g.word.Load(); int64(head-groupPos(w)) > 0 {
		g.word.CompareAndSwap(w, groupWord(head, noCursor))
	}
	h.floor.Store(0)
	g.idle.Store(0)
}

// shared returns what the members of the subscription's group share.
func (r *Subscription) shared() *group { return &r.s.ring.groups[r.group] }

// A busy member looks for dead ones each time it has taken this many messages.
const lookForDead = 256

// pollGroup is poll for a member of a group.
func (r *Subscription) pollGroup() ([]byte, bool, error) {
	h := r.s.ring
	if r.taken++; r.taken >= lookForDead {
		r.taken = 0
		if rec, ok, err := r.redeliver(); ok || err != nil {
			return r.deliver(rec, true, err)
		}
	}
	for {
		w := r.shared().word.Load()
		r.s.confirm(r.group, w)
		pos, tail := groupPos(w), h.tail.Load()
		if pos == tail {
			return nil, false, nil
		}
		rec, ok := h.at(pos, tail)
		if ok && rec.length < 0 {
			rec, ok = h.at(rec.end, tail) // the message follows its padding
		}
		if !ok || rec.length < 0 {
			if r.shared().word.Load() != w {
				continue // other members have gone on, and a writer over it
			}
			return r.deliver(rec, false, errCorruptRing)
		}
		failpoint.At("stream_tentative")
		r.cursor.pos.Store(memberWord(rec.pos, r.group, tentative)) // [tentative]
		failpoint.At("stream_take")
		if r.shared().word.CompareAndSwap(w, groupWord(rec.end, r.index)) { // [take]
			failpoint.At("stream_held")
			r.cursor.pos.Store(memberWord(rec.pos, r.group, held)) // [held]
			failpoint.At("stream_got")
			return r.deliver(rec, false, nil)
		}
		r.cursor.pos.Store(0) // another member was faster
		r.tell(groupPos(r.shared().word.Load()))
	}
}

// deliver returns what poll returns of a record.
func (r *Subscription) deliver(rec record, again bool, err error) ([]byte, bool, error) {
	if err != nil {
		return nil, false, err
	}
	r.again = again
	return r.s.ring.message(&rec), true, nil
}

// confirm marks the cursor of the member that has taken the message before w, in case
// that it has died right after: before the next message is taken, and before the
// cursor is judged.
func (s *Stream) confirm(group int, w uint64) {
	i := int(w & 0xff)
	if i >= maxReaders {
		return
	}
	c := &s.ring.cursors[i]
	if v := c.pos.Load(); v&tentative != 0 && v>>groupBit == uint64(group) && int64(groupPos(w)-memberPos(v)) > 0 {
		failpoint.At("stream_confirm")
		c.pos.CompareAndSwap(v, v&^flags|held) // [confirm]
	}
}

// holds reports whether the cursor of a dead member holds a message. Otherwise the
// member has died between two messages, and the cursor is free.
func (s *Stream) holds(c *cursor, group int) bool {
	s.confirm(group, s.ring.groups[group].word.Load())
	return c.pos.Load()&held != 0
}

// redeliver takes over the cursor of a dead member that holds a message, together
// with that message.
func (r *Subscription) redeliver() (rec record, ok bool, err error) {
	h := r.s.ring
	for i := range h.cursors {
		c := &h.cursors[i]
		id := c.owner.Load()
		if i == r.index || id == 0 || c.mode.Load() != r.mode || r.s.seg.Alive(id) {
			continue
		}
		if !r.s.holds(c, r.group) {
			c.owner.CompareAndSwap(id, 0)
			r.tell(groupPos(r.shared().word.Load())) // a writer may wait for that cursor
			continue
		}
		v := c.pos.Load()
		rec, ok := h.at(memberPos(v), h.tail.Load())
		if !ok || rec.length < 0 {
			return rec, false, errCorruptRing
		}
		failpoint.At("stream_adopt")
		if !c.owner.CompareAndSwap(id, r.s.id) { // [adopt]
			continue
		}
		failpoint.At("stream_adopted")
		c.pid.Store(uint32(pid))
		r.shared().moves.Add(1)                  // before this member's former cursor is free: see reap
		r.cursor.owner.CompareAndSwap(r.s.id, 0) // it holds nothing
		r.cursor, r.index = c, i
		return rec, true, nil
	}
	return rec, false, nil
}

// othersHold reports whether another member of the group holds a message.
func (r *Subscription) othersHold() bool {
	h := r.s.ring
	for i := range h.cursors {
		c := &h.cursors[i]
		if i != r.index && c.owner.Load() != 0 && c.mode.Load() == r.mode && c.pos.Load() != 0 {
			return true
		}
	}
	return false
}
