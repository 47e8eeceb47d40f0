// Package doc is a text in a segment that several processes edit and watch.
//
// Each change replaces the text as a whole. There are two places for it, and a
// number that says which one counts, changed last: a process that is killed in
// the middle of a change has changed nothing.
//
// Who takes part stands in a table, so that others hear at once who joins and
// who leaves; an entry whose attachment has gone without having said so is that
// of a process that died.
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
	offMagic   = 0  // says that the segment is a text of this kind
	offCurrent = 8  // which of the two texts counts
	offLength  = 16 // of either text
	offPeers   = 32 // peerCount times an ID, and a pid and what it is
	offText    = offPeers + peerCount*peerSize

	peerCount = 64
	peerSize  = 16
)

var magic = []byte("qshmedit")

// MinSize is the smallest segment that can carry a text.
const MinSize = 4096

// ErrForeign says that the segment holds something else.
var ErrForeign = errors.New("it holds something else than a text for edit and view")

// A Role is what a process is there for.
type Role uint8

const (
	Viewer Role = 1 + iota
	Editor
	left Role = 0x80 // added by who leaves
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

// A State is the text at one moment, and who takes part.
type State struct {
	Text    string
	Version uint32
	Peers   []Peer // those who have not left; some may have died
}

// Doc is this process's end of the text.
type Doc struct {
	seg *shm.Segment
	id  uint64
	buf []byte
}

var order = binary.NativeEndian

// Join takes part in the text that seg carries.
func Join(seg *shm.Segment, role Role) (*Doc, error) {
	if seg.Size() < MinSize {
		return nil, ErrForeign
	}
	d := &Doc{seg: seg, id: seg.ID(), buf: make([]byte, seg.Size())}
	// Look before changing anything: it may be somebody else's.
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
	_, err = d.locked(func(data []byte) {
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

// Capacity is how many bytes of text there can be.
func (d *Doc) Capacity() int { return (d.seg.Size() - offText) / 2 }

func peer(data []byte, i int) []byte { return data[offPeers+i*peerSize:][:peerSize] }

// text returns the text that counts.
func text(data []byte) string {
	capacity, current := (len(data)-offText)/2, int(order.Uint64(data[offCurrent:])&1)
	length := min(order.Uint64(data[offLength+8*current:]), uint64(capacity))
	return string(data[offText+current*capacity:][:length])
}

func setText(data []byte, text string) {
	capacity, next := (len(data)-offText)/2, 1-int(order.Uint64(data[offCurrent:])&1)
	copy(data[offText+next*capacity:], text)
	order.PutUint64(data[offLength+8*next:], uint64(len(text)))
	order.PutUint64(data[offCurrent:], uint64(next)) // from here on it counts
}

// copy makes d.buf what stands in the segment. A writer that died inside the lock
// has left the text as it was before, so ErrAbandoned does not matter here.
func (d *Doc) copy() (version uint32, err error) {
	_, version, err = d.seg.Snapshot(d.buf)
	if errors.Is(err, shm.ErrAbandoned) {
		err = nil
	}
	return version, err
}

// Load returns the text and who takes part. It is for one goroutine at a time.
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

// lockPatience is how long a change waits for its turn. Nobody holds the lock for
// longer than a change takes, unless it was stopped there.
const lockPatience = time.Second

// locked calls fn inside the lock, and returns the version of what it has made.
func (d *Doc) locked(fn func(data []byte)) (version uint32, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), lockPatience)
	defer cancel()
	if err := d.seg.LockContext(ctx); err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("not saved: %w", errors.Unwrap(err))
		}
		return 0, err
	}
	fn(d.seg.Data())
	version = d.seg.Version() + 1 // it moves with our unlock, and with nobody else's before
	return version, d.seg.Unlock()
}

// Edit replaces the text by what fn makes of it, and returns its version. fn gets
// the text as it is by now, whoever has changed it; what it returns must fit.
func (d *Doc) Edit(fn func(now string) string) (version uint32, err error) {
	return d.locked(func(data []byte) {
		now := text(data)
		if next := fn(now); next != now && len(next) <= d.Capacity() {
			setText(data, next)
		}
	})
}

// Alive returns the IDs of the attachments whose process is alive.
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

// ID is our own among the peers.
func (d *Doc) ID() uint64 { return d.id }

// Leave tells the others that this process has not died.
func (d *Doc) Leave() error {
	_, err := d.locked(func(data []byte) {
		for i := range peerCount {
			if p := peer(data, i); order.Uint64(p) == d.id {
				p[8] |= byte(left)
			}
		}
	})
	return err
}
