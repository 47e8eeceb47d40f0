// Package textlog is a text in a segment that one process appends to and any
// number of others read as it comes.
//
// The text stands in a ring behind a header that counts how much there has ever
// been, so a reader knows exactly what is new, and whether something was
// overwritten before it came to read it. For that not to happen, the writer waits
// for readers that are behind; but not for ever for one that does not move, a
// stopped terminal for example: that one is told how much it has lost.
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
	offMagic   = 0  // says that the segment is a text of this kind
	offTotal   = 8  // how many bytes were ever appended
	offWriter  = 16 // the ID of the attachment that appends, 0 if it has ended
	offWaiting = 24 // not 0: the writer waits for readers to say how far they are
	offBegun   = 28 // not 0: there has been a writer
	offReaders = 32 // readerCount times an ID and how far that reader is
	offText    = offReaders + readerCount*readerSize

	readerCount = 64
	readerSize  = 16
)

var magic = []byte("qshmtext")

// MinSize is the smallest segment that can carry a text.
const MinSize = 4096

// ErrForeign says that the segment holds something else.
var ErrForeign = errors.New("it holds something else than shared text")

// ErrKilled is what Next reports when the writer is gone without having ended.
var ErrKilled = errors.New("the writer died")

const (
	// How long the writer waits for a reader that does not move.
	patience = time.Second
	// How often a reader looks whether the writer still lives. All other news
	// wakes it.
	lookEvery = time.Second
	// How often a waiting writer looks whether the reader still lives.
	stallSlice = 50 * time.Millisecond
)

var order = binary.NativeEndian

// Log is this process's end of a text.
type Log struct {
	seg    *shm.Segment
	id     uint64
	writer bool

	// A reader's own:
	room  uint64 // of the ring
	seen  uint64
	slot  int             // in the table of readers; -1 if that is full
	woken <-chan struct{} // closed when the version has moved
	since uint32
}

// Join takes part in the text that seg carries: as the writer if there is none
// alive and mayWrite says so, as a reader otherwise.
func Join(seg *shm.Segment, mayWrite bool) (*Log, error) {
	if seg.Size() < MinSize {
		return nil, ErrForeign
	}
	l := &Log{seg: seg, id: seg.ID(), slot: -1, room: uint64(seg.Size() - offText)}
	// Look before changing anything: it may be somebody else's.
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

// Writer reports whether this process appends. Otherwise it reads.
func (l *Log) Writer() bool { return l.writer }

// living returns the IDs of the attachments whose process is alive.
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

// oldest returns where the text begins that still stands in the ring.
func oldest(total, room uint64) uint64 { return total - min(total, room) }

func reader(data []byte, i int) []byte {
	return data[offReaders+i*readerSize:][:readerSize]
}

// register enters this reader into the table, where there is room or a dead
// reader's entry. Without one it still reads, only that the writer does not wait
// for it.
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

// Append adds p to the text. It waits for readers that are behind, as long as
// they move.
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

// append adds as much of p as no reader has to lose anything for.
//
// The text comes first and its count last: if we die in between, nothing has
// been added.
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

// free is how much can be appended without overwriting what a reader has not
// seen yet.
func (l *Log) free(data []byte) uint64 {
	total, free := order.Uint64(data[offTotal:]), l.room
	for i := range readerCount {
		if r := reader(data, i); order.Uint64(r) != 0 {
			free = min(free, l.room-min(l.room, total-order.Uint64(r[8:])))
		}
	}
	return free
}

// awaitReaders returns when there is room. Readers that have died, or do not
// move, are no longer waited for.
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

// forget takes the dead out of the table of readers; with slow also those that
// hold up the writer.
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

// Next waits for text and returns it; the slice is good until the next call.
// lost tells how many bytes before it were overwritten unseen. Next reports
// io.EOF when the writer has ended, and ErrKilled when it has died.
func (l *Log) Next(ctx context.Context) (text []byte, lost uint64, err error) {
	dead := false
	for {
		text, lost, writer, begun, err := l.read()
		if err != nil || len(text) > 0 {
			return text, lost, err
		}
		switch {
		case writer == 0 && begun:
			return nil, 0, io.EOF
		case dead: // and we have looked again since
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
		dead = begun && !alive[writer]
	}
}

// read copies what is new, and says who is the writer, and whether there has been
// one.
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
	if lost > 0 { // go on with a whole line
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

// copy is ReadAt. If the writer died inside the lock, what it has counted is
// complete all the same, so ErrAbandoned does not matter here.
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

// stillThere reports whether the text from start on was not overwritten while we
// copied it.
func (l *Log) stillThere(start uint64) bool {
	var now [8]byte
	err := l.copy(now[:], offTotal)
	return err != nil || order.Uint64(now[:]) <= start+l.room
}

// acknowledge tells the writer how far we are. It is not asked for as long as
// there is room, so that readers do not wake each other for nothing.
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

var errLook = errors.New("time to look whether the writer lives")

// wait returns nil when something has changed, errLook when nothing has for a
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

// End takes this process out of the text, so that nobody waits for it. Readers
// end when the writer has.
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
		<-l.woken // by the update; a Wait in progress would keep the attachment
	}
	return err
}
