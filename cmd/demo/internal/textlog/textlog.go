// Package textlog is a text in a segment to which one process appends, and which any
// number of other processes read as it comes.
//
// The text is in a ring. A header counts the bytes that were ever appended, so that a
// reader knows exactly what is new, and how much the writer has overwritten before
// the reader came to it. The writer waits for readers that are behind, but not for
// ever: a reader that does not advance, in a stopped terminal for example, loses text
// and learns how much.
package textlog

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"time"

	"qshm/shm"
)

// The header, in the byte order of the machine:
const (
	offMagic   = 0  // identifies a text of this kind
	offTotal   = 8  // how many bytes were ever appended
	offWriter  = 16 // the ID of the writer's attachment, 0 if the writer has ended
	offWaiting = 24 // not 0: the writer waits for the readers' positions
	offBegun   = 28 // not 0: there has been a writer
	offReaders = 32 // readerCount times the ID of a reader's attachment and its position
	offText    = offReaders + readerCount*readerSize

	readerCount = 64
	readerSize  = 16
)

var magic = []byte("qshmtext")

// MinSize is the size of the smallest segment for a text.
const MinSize = 4096

// ErrForeign says that the segment holds something else.
var ErrForeign = errors.New("the segment does not hold shared text")

// ErrKilled is the error of Next if the writer has died.
var ErrKilled = errors.New("the writer died")

const (
	// How long the writer waits for a reader that does not advance.
	patience = 5 * time.Second
	// How often a reader looks whether the writer is alive. Everything else changes
	// the segment, and wakes it.
	lookEvery = time.Second
	// How often a waiting writer looks whether the readers are alive.
	stallSlice = 50 * time.Millisecond
)

var order = binary.NativeEndian

// Log is this process's access to a text.
type Log struct {
	seg    *shm.Segment
	id     uint64
	writer bool

	room uint64 // of the ring

	// Of a reader:
	seen  uint64          // its position
	slot  int             // its index in the table of readers; -1 if that is full
	woken <-chan struct{} // closed when the version has moved
	since uint32
}

// Join takes part in the text that seg holds: as the writer if mayWrite is true and no
// writer is alive, otherwise as a reader.
func Join(seg *shm.Segment, mayWrite bool) (*Log, error) {
	if seg.Size() < MinSize {
		return nil, ErrForeign
	}
	l := &Log{seg: seg, id: seg.ID(), slot: -1, room: uint64(seg.Size() - offText)}
	// Look before changing anything: the segment may hold something else.
	head := make([]byte, offText)
	if err := l.copy(head, 0); err != nil {
		return nil, err
	}
	if !bytes.HasPrefix(head, magic) && len(bytes.TrimLeft(head, "\x00")) > 0 {
		return nil, ErrForeign
	}
	err := seg.Update(func(data []byte) error {
		copy(data[offMagic:], magic)
		alive, err := l.living()
		if err != nil {
			return err
		}
		if mayWrite && !alive[order.Uint64(data[offWriter:])] {
			order.PutUint64(data[offWriter:], l.id)
			order.PutUint32(data[offBegun:], 1)
			order.PutUint32(data[offWaiting:], 0)
			l.writer = true
			return nil
		}
		l.register(data, alive)
		return nil
	})
	return l, err
}

// Writer reports whether this process is the writer. Otherwise it is a reader.
func (l *Log) Writer() bool { return l.writer }

// living returns the IDs of the attachments of live processes.
func (l *Log) living() (map[uint64]bool, error) {
	info, err := l.seg.Info()
	if err != nil {
		return nil, err
	}
	ids := map[uint64]bool{}
	for _, a := range info.Attachments {
		ids[a.ID] = true
	}
	return ids, nil
}

// oldest returns the position of the oldest byte in the ring.
func oldest(total, room uint64) uint64 { return total - min(total, room) }

func reader(data []byte, i int) []byte {
	return data[offReaders+i*readerSize:][:readerSize]
}

// register enters this reader into the table, in a free entry or a dead reader's. If
// there is none, the reader still reads, but the writer does not wait for it.
func (l *Log) register(data []byte, alive map[uint64]bool) {
	l.slot = -1
	for i := range readerCount {
		r := reader(data, i)
		if alive[order.Uint64(r)] {
			continue
		}
		order.PutUint64(r[8:], l.seen)
		order.PutUint64(r, l.id)
		l.slot = i
		return
	}
}

// Append adds p to the text. It waits for readers that are behind, as long as they
// advance.
func (l *Log) Append(ctx context.Context, p []byte) error {
	for len(p) > 0 {
		n, err := l.append(p)
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) > 0 {
			if err := l.awaitReaders(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}

// append adds as much of p as fits without overwriting what a reader has not read.
//
// The total is written last: if this process dies before, it has added nothing.
func (l *Log) append(p []byte) (n int, err error) {
	err = l.seg.Update(func(data []byte) error {
		total, text := order.Uint64(data[offTotal:]), data[offText:]
		n = int(min(uint64(len(p)), l.free(data)))
		for i := 0; i < n; {
			i += copy(text[(total+uint64(i))%uint64(len(text)):], p[i:n])
		}
		order.PutUint64(data[offTotal:], total+uint64(n))
		waiting := uint32(0)
		if n < len(p) {
			waiting = 1
		}
		order.PutUint32(data[offWaiting:], waiting)
		return nil
	})
	return n, err
}

// free returns how much can be appended without overwriting what a reader has not
// read.
func (l *Log) free(data []byte) uint64 {
	total, free := order.Uint64(data[offTotal:]), l.room
	for i := range readerCount {
		if r := reader(data, i); order.Uint64(r) != 0 {
			free = min(free, l.room-min(l.room, total-order.Uint64(r[8:])))
		}
	}
	return free
}

// awaitReaders returns when there is room. It gives up on readers that have died or do
// not advance.
func (l *Log) awaitReaders(ctx context.Context) error {
	lastMove, before := time.Now(), uint64(0)
	for {
		since := l.seg.Version()
		var free, progress uint64
		err := l.seg.View(func(data []byte) error {
			free = l.free(data)
			for i := range readerCount {
				progress += order.Uint64(reader(data, i)[8:])
			}
			return nil
		})
		if err != nil || free > 0 {
			return err
		}
		if progress != before {
			lastMove, before = time.Now(), progress
		}
		slice, cancel := context.WithTimeout(ctx, stallSlice)
		_, err = l.seg.Wait(slice, since)
		cancel()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			continue
		}
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		if err := l.forget(time.Since(lastMove) > patience); err != nil {
			return err
		}
	}
}

// forget removes dead readers from the table, and, if slow is true, those that the
// writer waits for.
func (l *Log) forget(slow bool) error {
	alive, err := l.living()
	if err != nil {
		return err
	}
	return l.seg.Update(func(data []byte) error {
		start := oldest(order.Uint64(data[offTotal:]), l.room)
		for i := range readerCount {
			r := reader(data, i)
			if !alive[order.Uint64(r)] || slow && order.Uint64(r[8:]) <= start {
				order.PutUint64(r, 0)
			}
		}
		return nil
	})
}

// Next waits for text and returns it; the slice is valid until the next call. lost is
// the number of bytes before the text that were overwritten unread. Next reports
// io.EOF when the writer has ended, and ErrKilled when it has died.
func (l *Log) Next(ctx context.Context) (text []byte, lost uint64, err error) {
	var dead uint64 // the writer that was found dead
	for {
		text, lost, writer, begun, err := l.read()
		if err != nil || len(text) > 0 {
			return text, lost, err
		}
		switch {
		case writer == 0 && begun:
			return nil, 0, io.EOF
		case dead != 0 && writer == dead: // and nothing has come since
			return nil, 0, ErrKilled
		}
		if err := l.wait(ctx); !errors.Is(err, errLook) {
			if err != nil {
				return nil, 0, err
			}
			continue
		}
		alive, err := l.living()
		if err != nil {
			return nil, 0, err
		}
		if begun && !alive[writer] {
			dead = writer
		}
	}
}

// read copies the new text. It also returns the writer's ID, and whether there has been
// a writer.
func (l *Log) read() (text []byte, lost, writer uint64, begun bool, err error) {
	head := make([]byte, offText)
	for {
		l.since = l.seg.Version()
		if err := l.copy(head, 0); err != nil {
			return nil, 0, 0, false, err
		}
		total, start := order.Uint64(head[offTotal:]), l.seen
		if first := oldest(total, l.room); start < first {
			lost, start = first-start, first
		}
		text = make([]byte, total-start)
		at := start % l.room
		n := min(uint64(len(text)), l.room-at)
		if err := l.copy(text[:n], offText+int64(at)); err != nil {
			return nil, 0, 0, false, err
		}
		if err := l.copy(text[n:], offText); err != nil {
			return nil, 0, 0, false, err
		}
		if l.seg.Version() == l.since || l.stillThere(start) {
			l.seen = total
			break
		}
		lost = 0
	}
	if lost > 0 { // continue with a whole line
		nl := bytes.IndexByte(text, '\n') + 1
		text, lost = text[nl:], lost+uint64(nl)
	}
	known, asked := false, false
	if l.slot >= 0 {
		r := reader(head, l.slot)
		known = order.Uint64(r) == l.id
		asked = order.Uint32(head[offWaiting:]) != 0 && order.Uint64(r[8:]) != l.seen
	}
	if asked || !known && l.slot >= 0 {
		if err := l.acknowledge(known); err != nil {
			return nil, 0, 0, false, err
		}
	}
	return text, lost, order.Uint64(head[offWriter:]), order.Uint32(head[offBegun:]) != 0, nil
}

// copy is ReadAt. ErrAbandoned does not matter: the text is complete up to the total
// even if the writer died while it held the lock.
func (l *Log) copy(p []byte, off int64) error {
	if len(p) == 0 {
		return nil
	}
	_, err := l.seg.ReadAt(p, off)
	if errors.Is(err, shm.ErrAbandoned) || errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// stillThere reports whether the writer has not yet overwritten the text from start on.
func (l *Log) stillThere(start uint64) bool {
	var now [8]byte
	err := l.copy(now[:], offTotal)
	return err != nil || order.Uint64(now[:]) <= start+l.room
}

// acknowledge tells the writer this reader's position. The writer asks for it only when
// the ring is full, so that readers do not wake each other for nothing.
func (l *Log) acknowledge(known bool) error {
	var alive map[uint64]bool
	if !known {
		var err error
		if alive, err = l.living(); err != nil {
			return err
		}
	}
	return l.seg.Update(func(data []byte) error {
		if !known {
			l.register(data, alive)
		} else {
			order.PutUint64(reader(data, l.slot)[8:], l.seen)
		}
		return nil
	})
}

var errLook = errors.New("time to look whether the writer is alive")

// wait returns nil when the segment has changed, and errLook if it has not for a
// while. One goroutine sleeps until the change, over many calls.
func (l *Log) wait(ctx context.Context) error {
	if l.woken == nil {
		woken, since := make(chan struct{}), l.since
		l.woken = woken
		go func() {
			l.seg.Wait(ctx, since)
			close(woken)
		}()
	}
	timer := time.NewTimer(lookEvery)
	defer timer.Stop()
	select {
	case <-l.woken:
		l.woken = nil
		return ctx.Err()
	case <-timer.C:
		return errLook
	}
}

// End ends taking part: no process waits for this one any more, and if it is the
// writer, the readers end.
func (l *Log) End() error {
	err := l.seg.Update(func(data []byte) error {
		if l.writer {
			order.PutUint64(data[offWriter:], 0)
			order.PutUint32(data[offWaiting:], 0)
		}
		for i := range readerCount {
			if r := reader(data, i); order.Uint64(r) == l.id {
				order.PutUint64(r, 0)
			}
		}
		return nil
	})
	if l.woken != nil && err == nil {
		<-l.woken // the update ends the Wait, which would keep the attachment
	}
	return err
}
