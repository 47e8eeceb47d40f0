// Package doc is a text in a segment that several processes edit and watch.
//
// Each change replaces the whole text. The new text is written to a place that the
// current one does not use, and one word, written last, says which of two places
// counts: a process that is killed during a change has changed nothing. The segment
// grows with the text.
package doc

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"qshm/shm"
)

// The header, in the byte order of the machine:
const (
	offMagic   = 0  // identifies a text of this kind
	offCurrent = 8  // which of the two places holds the text
	offPlaces  = 16 // two times an offset and a length
	offText    = 64

	placeSize = 16
)

var magic = []byte("qshmedit")

// MinSize is the size of the smallest segment for a text.
const MinSize = 4096

// ErrForeign says that the segment holds something else.
var ErrForeign = errors.New("the segment does not hold a text for edit and view")

// Doc is this process's access to the text.
type Doc struct {
	seg *shm.Segment
	buf []byte
}

var order = binary.NativeEndian

// Open takes part in the text that seg holds. A read-only attachment is for Load and
// Wait.
func Open(seg *shm.Segment) (*Doc, error) {
	if seg.Size() < MinSize {
		return nil, ErrForeign
	}
	d := &Doc{seg: seg}
	// Look before changing anything: the segment may hold something else.
	if _, err := d.copy(); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(d.buf, magic) && len(bytes.TrimLeft(d.buf, "\x00")) > 0 {
		return nil, ErrForeign
	}
	if seg.ReadOnly() {
		return d, nil
	}
	_, err := d.locked(func() { copy(seg.Data()[offMagic:], magic) })
	return d, err
}

// capacity returns how long a text can be: two must fit.
func capacity(size int) int { return (size - offText) / 2 }

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

// Load returns the text and its version. It is for one goroutine at a time.
func (d *Doc) Load() (now string, version uint32, err error) {
	if version, err = d.copy(); err != nil {
		return "", 0, err
	}
	return text(d.buf), version, nil
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
