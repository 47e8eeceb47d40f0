package shm

import (
	"os"
	"sync"

	"qshm/lockfile"
)

// This file is what a process has once, however many attachments it has: its
// presence in each store that it uses, and each segment's memory.

// process guards all homes and their mappings. Nothing that waits for another
// process happens under it.
var process struct {
	sync.Mutex
	homes map[string]*home // by store
}

// home is this process's part in one store. It lasts from the first attachment
// there to the last.
type home struct {
	dir      string
	presence *lockfile.Presence
	users    int                 // attachments, and calls that are about to make one
	maps     map[string]*mapping // by path: what a further attachment can share
}

// enterHome announces this process in dir, if it has not been already. Where
// somebody has taken the presence away, with the whole store perhaps, what this
// process had there counts as dead, and what comes next gets a new presence.
func enterHome(dir string) (*home, error) {
	process.Lock()
	defer process.Unlock()
	h := process.homes[dir]
	if h == nil || !h.presence.Linked() {
		presence, err := lockfile.Announce(dir)
		if err != nil {
			return nil, err
		}
		h = &home{dir: dir, presence: presence, maps: map[string]*mapping{}}
		if process.homes == nil {
			process.homes = map[string]*home{}
		}
		process.homes[dir] = h
	}
	h.users++
	return h, nil
}

// leave gives back what enterHome gave.
func (h *home) leave() error {
	process.Lock()
	defer process.Unlock()
	return h.left()
}

// left is leave for a caller that holds process. The last one to leave withdraws
// the presence: no slot has this process's token by then.
func (h *home) left() error {
	if h.users--; h.users > 0 {
		return nil
	}
	if process.homes[h.dir] == h {
		delete(process.homes, h.dir)
	}
	fault("withdraw")
	return h.presence.Withdraw()
}

// share attaches to a segment that this process has already, if it is still what
// stands at its path. Its attachment keeps the segment alive, so that no door is
// needed; nor can that one end meanwhile, since ending takes process too. If that
// does not do, for want of a slot too, it returns nothing.
func (p *place) share(mayAttach bool) (*attachment, error) {
	process.Lock()
	defer process.Unlock()
	h := process.homes[p.dir]
	if h == nil || !h.presence.Linked() {
		return nil, nil
	}
	m := h.maps[p.path]
	if m == nil || m.state() != stateLive || !m.linked() {
		return nil, nil
	}
	if !mayAttach {
		return nil, exists(m)
	}
	h.users++
	a, err := h.attach(m, p.readOnly, false)
	if err != nil {
		return nil, nil // not outside the door
	}
	return a, nil
}

// adopt attaches to m, for a caller inside the door, and makes it what further
// attachments share. If another goroutine has mapped the same segment meanwhile,
// that mapping is used instead. Whatever fails, h is given back and m closed.
func (h *home) adopt(m *mapping, readOnly bool) (*attachment, error) {
	process.Lock()
	defer process.Unlock()
	if first := h.maps[m.path]; first != nil && os.SameFile(first.info, m.info) {
		m.close()
		m = first
	} else {
		h.maps[m.path] = m
	}
	return h.attach(m, readOnly, true)
}
