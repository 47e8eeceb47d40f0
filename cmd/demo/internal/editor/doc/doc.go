// Package doc is a text in a segment that several processes edit and watch.
//
// Each change replaces the whole text. The new text is written to a place that the
// current one does not use, and one word, written last, says which of two places
// counts: a process that is killed during a change has changed nothing. The segment
// grows with the text.
//
// A table in the segment lists the processes that take part, so that all of them
// learn at once that a process has joined or left. An entry whose attachment does
// not exist any more belongs to a process that has died.
package doc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"qshm/shm"
)

// The header, in the byte order of the machine:
const (
	offMagic   = 0  // identifies a text of this kind
	offCurrent = 8  // which of the two places holds the text
	offPlaces  = 16 // two times an offset and a length
	offPeers   = 48 // peerCount times an ID, a role and a pid
	offText    = offPeers + peerCount*peerSize

	placeSize = 16
	peerCount = 64
	peerSize  = 16
)

var magic = []byte("qshmedit")

// MinSize is the size of the smallest segment for a text.
const MinSize = 4096

// ErrForeign says that the segment holds something else.
var ErrForeign = errors.New("the segment does not hold a text for edit and view")

// A Role is what a process does with the text.
type Role uint8

const (
	Viewer Role = 1 + iota
	Editor
	left Role = 0x80 // added by a process that leaves
)

func (r Role) String() string {
	if r == Editor {
		return "editor"
	}
	return "viewer"
}

// A Peer is a process that takes part.
type Peer struct {
	ID   uint64
	PID  int
	Role Role
}

// A State is the text at one moment, and the processes that take part.
type State struct {
	Text    string
	Version uint32
	Peers   []Peer // those that have not left; some may have died
}

// Doc is this process's access to the text.
type Doc struct {
	seg *shm.Segment
	id  uint64
	buf []byte
}

var order = binary.NativeEndian

// Join takes part in the text that seg holds.
func Join(seg *shm.Segment, role Role) (*Doc, error) {
	if seg.Size() < MinSize {
		return nil, ErrForeign
	}
	d := &Doc{seg: seg, id: seg.ID()}
	// Look before changing anything: the segment may hold something else.
	if _, err := d.copy(); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(d.buf, magic) && len(bytes.TrimLeft(d.buf, "\x00")) > 0 {
		return nil, ErrForeign
	}
	alive, err := d.Alive()
	if err != nil {
		return nil, err
	}
	_, err = d.locked(func() {
		data := seg.Data()
		copy(data[offMagic:], magic)
		for i := range peerCount {
			p := peer(data, i)
			if id := order.Uint64(p); id == 0 || !alive[id] || Role(p[8])&left != 0 {
				order.PutUint64(p[8:], 0)
				order.PutUint64(p, d.id)
				order.PutUint32(p[12:], uint32(os.Getpid()))
				p[8] = byte(role)
				return
			}
		}
	})
	return d, err
}

// Size returns the size of the segment.
func (d *Doc) Size() int { return d.seg.Size() }

// capacity returns how long a text can be: two must fit.
func capacity(size int) int { return (size - offText) / 2 }

func peer(data []byte, i int) []byte { return data[offPeers+i*peerSize:][:peerSize] }

func place(data []byte, i uint64) []byte { return data[offPlaces+i*placeSize:][:placeSize] }

// current returns which place holds the text, and where that is: inside the segment,
// whatever another program has written there.
func current(data []byte) (i uint64, start, end int) {
	i = order.Uint64(data[offCurrent:]) & 1
	size := uint64(len(data))
	off := min(max(order.Uint64(place(data, i)), offText), size)
	length := min(order.Uint64(place(data, i)[8:]), size-off, uint64(capacity(len(data))))
	return i, int(off), int(off + length)
}

func text(data []byte) string {
	_, start, end := current(data)
	return string(data[start:end])
}

// setText replaces the text; the new one is not longer than the capacity.
func setText(data []byte, text string) {
	i, start, end := current(data)
	off := offText
	if start < off+len(text) && off < end {
		off += capacity(len(data))
	}
	if off < end && start < off+len(text) && end-start <= start-offText {
		// The segment has grown since the last change. Move the current text to the
		// beginning: the new one fits behind it.
		setText(data, string(data[start:end]))
		setText(data, text)
		return
	}
	next := place(data, 1-i)
	copy(data[off:], text)
	order.PutUint64(next, uint64(off))
	order.PutUint64(next[8:], uint64(len(text)))
	order.PutUint64(data[offCurrent:], 1-i) // from here on it counts
}

// copy makes d.buf a copy of the segment. ErrAbandoned does not matter: a process
// that died while it held the lock has left the text as it was.
func (d *Doc) copy() (version uint32, err error) {
	for {
		size := d.seg.Size()
		if size > len(d.buf) {
			d.buf = make([]byte, size)
		}
		_, version, err = d.seg.Snapshot(d.buf)
		if errors.Is(err, shm.ErrAbandoned) {
			err = nil
		}
		if err != nil || d.seg.Size() == size { // else it may have grown meanwhile
			return version, err
		}
	}
}

// Load returns the text and the processes that take part. It is for one goroutine at
// a time.
func (d *Doc) Load() (State, error) {
	version, err := d.copy()
	if err != nil {
		return State{}, err
	}
	s := State{Text: text(d.buf), Version: version}
	for i := range peerCount {
		p := peer(d.buf, i)
		if id, role := order.Uint64(p), Role(p[8]); id != 0 && role != 0 && role&left == 0 {
			s.Peers = append(s.Peers, Peer{ID: id, PID: int(order.Uint32(p[12:])), Role: role})
		}
	}
	return s, nil
}

// Wait sleeps until something has changed since version.
func (d *Doc) Wait(ctx context.Context, version uint32) error {
	_, err := d.seg.Wait(ctx, version)
	return err
}

// lockPatience is how long a change waits for the lock. A process holds the lock
// only as long as a change takes, unless the process was stopped.
const lockPatience = time.Second

// locked calls fn while this process holds the lock, and returns the version that
// the segment has after it.
func (d *Doc) locked(fn func()) (version uint32, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	if err := d.seg.LockContext(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not saved: %w", errors.Unwrap(err))
		}
		return 0, err
	}
	fn()
	version = d.seg.Version() + 1 // only this Unlock can move it
	return version, d.seg.Unlock()
}

// Edit replaces the text by the result of fn, and returns its version. fn gets the
// text as it is now. Its result must fit: see MakeRoom.
func (d *Doc) Edit(fn func(now string) string) (version uint32, err error) {
	return d.locked(func() {
		now := text(d.seg.Data())
		if next := fn(now); next != now && len(next) <= capacity(d.seg.Size()) {
			setText(d.seg.Data(), next)
		}
	})
}

// MakeRoom returns how long a text can be. If that is less than n, it grows the
// segment first, to more than necessary if the store has that much, so that it
// rarely grows. Only the function that Edit calls may call it.
func (d *Doc) MakeRoom(n int) (room int, err error) {
	room = capacity(d.seg.Size())
	for more := max(n-room, room); more > 0 && n > room; more /= 2 {
		err = d.seg.Grow((offText + 2*(room+more) + MinSize - 1) / MinSize * MinSize)
		room = capacity(d.seg.Size())
		if err != nil && !errors.Is(err, shm.ErrNoSpace) {
			break
		}
	}
	return room, err
}

// Alive returns the IDs of the attachments of live processes.
func (d *Doc) Alive() (map[uint64]bool, error) {
	info, err := d.seg.Info()
	if err != nil {
		return nil, err
	}
	ids := map[uint64]bool{}
	for _, a := range info.Attachments {
		ids[a.ID] = true
	}
	return ids, nil
}

// ID is this process's own among the peers.
func (d *Doc) ID() uint64 { return d.id }

// Leave tells the other processes that this one has not died.
func (d *Doc) Leave() error {
	_, err := d.locked(func() {
		for i := range peerCount {
			if p := peer(d.seg.Data(), i); order.Uint64(p) == d.id {
				p[8] |= byte(left)
			}
		}
	})
	return err
}
