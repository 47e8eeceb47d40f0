package stream

import (
	"fmt"
	"runtime/debug"

	"qshm/shm"
)

// Info describes a stream.
type Info struct {
	Capacity int    // of the ring, in bytes
	Used     int    // how many bytes of it hold messages
	Sent     uint64 // how many messages were sent
	Writers  int    // how many live processes have sent something and not closed
	Readers  []Reader
}

// Reader describes a subscription of a live process.
type Reader struct {
	PID    int    // in the process's own namespace
	ID     uint64 // of its attachment, as in shm.Info
	Group  string // whose member it is; "" if none
	Latest bool
	Behind int // how many bytes it has not read; of a member, since the message that it holds, or its group
}

// Info describes the stream as it is now.
//
// Errors: ErrClosed; ErrNotStream and shm.ErrCorrupt as Send.
func (s *Stream) Info() (info Info, err error) {
	if !s.section.enter() {
		return Info{}, fail("info", s.key, ErrClosed)
	}
	locked := false
	defer s.finish("info", &s.section, &locked, debug.SetPanicOnFault(true), &err)
	return describe(s.seg, s.ring)
}

// Stat describes the stream of key. It changes nothing.
//
// Errors: ErrNotStream if the segment is not a stream; those of shm.Attach.
func Stat(key string, opts ...shm.Option) (info Info, err error) {
	seg, err := shm.Attach(key, append(opts[:len(opts):len(opts)], shm.ReadOnly())...)
	if err != nil {
		return Info{}, fail("stat", key, err)
	}
	defer seg.Close()
	defer func(before bool) {
		debug.SetPanicOnFault(before)
		if r := recover(); r != nil {
			if err = faultError("stat", key, r); err == nil {
				panic(r)
			}
		}
	}(debug.SetPanicOnFault(true))
	r, err := newRing(seg)
	if err == nil {
		info, err = describe(seg, r)
	}
	if err != nil {
		return Info{}, fail("stat", key, err)
	}
	return info, nil
}

func describe(seg *shm.Segment, r *ring) (Info, error) {
	head, tail, err := r.ends()
	if err != nil {
		return Info{}, err
	}
	info := Info{Capacity: int(r.capacity), Used: int(tail - head), Sent: r.sent}
	for i := range r.writers {
		if id := r.writers[i].Load(); id != 0 && seg.Alive(id) {
			info.Writers++
		}
	}
	for i := range r.cursors {
		c := &r.cursors[i]
		id := c.owner.Load()
		if id == 0 || !seg.Alive(id) {
			continue
		}
		mode, pos := c.mode.Load(), c.pos.Load()
		reader := Reader{PID: int(c.pid.Load()), ID: id, Latest: mode == modeNew}
		if mode >= modeGroup && mode < modeGroup+maxGroups {
			g := &r.groups[mode-modeGroup]
			reader.Group = g.title()
			if pos == 0 {
				pos = groupPos(g.word.Load())
			}
			pos = memberPos(pos)
		}
		reader.Behind = max(0, int(tail-pos))
		info.Readers = append(info.Readers, reader)
	}
	return info, nil
}

// describeReader says who holds up a writer.
func (s *Stream) describeReader(c *cursor) string {
	tail, pos, mode := s.ring.tail.Load(), c.pos.Load(), c.mode.Load()
	name := fmt.Sprintf("the reader in process %d", c.pid.Load())
	if mode >= modeGroup && mode < modeGroup+maxGroups {
		g := &s.ring.groups[mode-modeGroup]
		if pos == 0 {
			name, pos = fmt.Sprintf("the group %q, with a member in process %d,", g.title(), c.pid.Load()), groupPos(g.word.Load())
		} else {
			name = fmt.Sprintf("the member of the group %q in process %d", g.title(), c.pid.Load())
		}
		pos = memberPos(pos)
	}
	return fmt.Sprintf("%s is %d bytes behind, and the ring has %d", name, tail-pos, s.ring.capacity)
}
