package test

import (
	"context"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"qshm/shm/stream"
)

// Streams between processes: writers, readers and members of groups that are stopped
// and killed.

func init() {
	kinds["ErrNotStream"], kinds["ErrWriterDied"], kinds["ErrClosed"] = stream.ErrNotStream, stream.ErrWriterDied, stream.ErrClosed
	extra["stream"] = func(_ *child, _ context.Context, r request, a *answer) error {
		s, err := stream.Open(string(r.Key), r.N)
		if err == nil {
			a.Handle = ends.keep(s)
		}
		return err
	}
	extra["stream close"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		return ends.get(r.Handle).(io.Closer).Close()
	}
	// stream subscribe subscribes as Data says: "", "group NAME", "latest" or "oldest".
	extra["stream subscribe"] = func(_ *child, _ context.Context, r request, a *answer) error {
		var o []stream.Option
		switch kind, name, _ := strings.Cut(string(r.Data), " "); kind {
		case "group":
			o = append(o, stream.Group(name))
		case "latest":
			o = append(o, stream.Latest())
		case "oldest":
			o = append(o, stream.FromOldest())
		}
		sub, err := ends.get(r.Handle).(*stream.Stream).Subscribe(o...)
		if err == nil {
			a.Handle = ends.keep(sub)
		}
		return err
	}
	extra["stream send"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		return ends.get(r.Handle).(*stream.Stream).Send(ctx, r.Data)
	}
	extra["stream flush"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		return ends.get(r.Handle).(*stream.Stream).Flush(ctx)
	}
	// stream half reserves room for a message, and writes a half of it there.
	extra["stream half"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		res, err := ends.get(r.Handle).(*stream.Stream).Reserve(ctx, 2*len(r.Data))
		if err == nil {
			copy(res.Bytes(), r.Data)
		}
		return err
	}
	// stream next returns the next message, in OK whether it is redelivered, and in N how many
	// were lost.
	extra["stream next"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		m, err := sub.Next(ctx)
		a.Data, a.OK = slices.Clone(m), err == nil && sub.Redelivered()
		a.N = int(sub.Lost())
		return err
	}
	// stream sends sends N parcels of the writer Off.
	extra["stream sends"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		s := ends.get(r.Handle).(*stream.Stream)
		for i := range r.N {
			if err := s.Send(ctx, parcel(uint32(r.Off), uint32(i), i%100)); err != nil {
				return err
			}
		}
		return nil
	}
	// stream drain reads to the end. It returns how many parcels came, and how many of each
	// writer; those must come in order, each once.
	extra["stream drain"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		counts := map[uint32]uint32{}
		for m, err := range ends.get(r.Handle).(*stream.Subscription).Messages(ctx) {
			if err != nil {
				return err
			}
			writer, n, err := opened(m)
			if err != nil {
				return err
			}
			if n != counts[writer] {
				return fmt.Errorf("message %d of writer %d, want %d", n, writer, counts[writer])
			}
			counts[writer]++
			a.N++
		}
		a.Data = fmt.Append(nil, counts)
		return nil
	}
}

// ends has the streams and subscriptions of this process, by their handles.
var ends = &endTable{m: map[string]any{}}

type endTable struct {
	mu sync.Mutex
	m  map[string]any
}

func (t *endTable) keep(v any) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	h := "stream " + strconv.Itoa(len(t.m))
	t.m[h] = v
	return h
}

func (t *endTable) get(h string) any {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.m[h]
}

// parcel makes message n of a writer, with a checksum.
func parcel(writer, n uint32, length int) []byte {
	b := make([]byte, 12+length)
	binary.LittleEndian.PutUint32(b[4:], writer)
	binary.LittleEndian.PutUint32(b[8:], n)
	for i := range length {
		b[12+i] = byte(n) + byte(i)
	}
	binary.LittleEndian.PutUint32(b, crc32.ChecksumIEEE(b[4:]))
	return b
}

// opened returns the numbers of a parcel, and an error if it is torn.
func opened(b []byte) (writer, n uint32, err error) {
	if len(b) < 12 || crc32.ChecksumIEEE(b[4:]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, fmt.Errorf("a torn message: %d bytes, % x…", len(b), b[:min(len(b), 40)])
	}
	return binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:]), nil
}

// An end is a stream or a subscription in another process.
type end struct {
	p      *proc
	handle string
}

func (p *proc) stream(k string, capacity int) end {
	p.t.Helper()
	return end{p, p.do(request{Op: "stream", Key: key(k), N: capacity}).Handle}
}

func (e end) subscribe(kind string) end {
	e.p.t.Helper()
	return end{e.p, e.p.do(request{Op: "stream subscribe", Handle: e.handle, Data: []byte(kind)}).Handle}
}

func (e end) begin(r request) *pending { r.Handle = e.handle; return e.p.begin(r) }

func (e end) try(op, data string, d time.Duration) (answer, error) {
	e.p.t.Helper()
	return e.begin(request{Op: op, Data: []byte(data), Timeout: d}).outcome()
}

func (e end) send(messages ...string) {
	e.p.t.Helper()
	for _, m := range messages {
		e.begin(request{Op: "stream send", Data: []byte(m)}).must()
	}
}

func (e end) want(messages ...string) {
	e.p.t.Helper()
	for _, m := range messages {
		if got := e.begin(request{Op: "stream next"}).must(); string(got.Data) != m || got.OK {
			e.p.t.Fatalf("Next: %q, redelivered %v, want %q, false", got.Data, got.OK, m)
		}
	}
}

// wantRedelivered checks that the next message comes again, after another member died.
func (e end) wantRedelivered(message string) {
	e.p.t.Helper()
	if got := e.begin(request{Op: "stream next"}).must(); string(got.Data) != message || !got.OK {
		e.p.t.Errorf("Next: %q, redelivered %v, want %q, true", got.Data, got.OK, message)
	}
}

func (e end) close() { e.p.t.Helper(); e.begin(request{Op: "stream close"}).must() }

func TestStreamEachReaderGetsEachMessageOnceInOrder(t *testing.T) {
	const writers, n = 3, 2000
	st := newStore(t)
	procs := st.startN(3 + writers)
	var drains []*pending
	for _, p := range procs[:3] {
		drains = append(drains, p.stream("k", 4096).subscribe("").begin(request{Op: "stream drain"}))
	}
	var sends []*pending
	var ends []end
	for i, p := range procs[3:] {
		w := p.stream("k", 4096)
		w.begin(request{Op: "stream sends", Off: int64(i)}).must()
		ends = append(ends, w)
	}
	for _, w := range ends {
		w.send(string(parcel(99, uint32(len(sends)), 0))) // so that each is a writer before the first closes
		sends = append(sends, nil)
	}
	for i, w := range ends {
		sends[i] = w.begin(request{Op: "stream sends", Off: int64(i), N: n})
	}
	for i, s := range sends {
		s.must()
		ends[i].close()
	}
	for _, d := range drains {
		if a := d.must(); a.N != writers*(n+1) {
			t.Errorf("a reader got %d messages, want %d; of each writer: %s", a.N, writers*(n+1), a.Data)
		}
	}
}

func TestStreamDeadReaderDelaysNoWriter(t *testing.T) {
	st := newStore(t)
	procs := st.startN(4)
	w, live := procs[0].stream("k", 4096), procs[1].stream("k", 4096).subscribe("")
	procs[2].stream("k", 4096).subscribe("")
	procs[3].stream("k", 4096).subscribe("group g")
	drain := live.begin(request{Op: "stream drain"})
	sends := w.begin(request{Op: "stream sends", N: 2000})
	procs[2].kill()
	procs[3].kill()
	sends.must()
	w.close()
	if a := drain.must(); a.N != 2000 {
		t.Errorf("the live reader got %d messages, want 2000", a.N)
	}
}

func TestStreamSendErrorNamesTheStoppedReader(t *testing.T) {
	needStop(t)
	st := newStore(t)
	procs := st.startN(3)
	w := procs[0].stream("k", 4096)
	for i, kind := range []string{"", "group g"} {
		reader := procs[1+i]
		sub := reader.stream("k", 4096).subscribe(kind)
		reader.stop()
		var err error
		for err == nil {
			_, err = w.try("stream send", strings.Repeat("x", 1000), 200*time.Millisecond)
		}
		wantError(t, err, context.DeadlineExceeded)
		if text := err.Error(); !strings.Contains(text, fmt.Sprintf("process %d", reader.pid)) || !strings.Contains(text, "bytes behind") {
			t.Errorf("Send: %v, want an error that says which process is behind and how far", err)
		}
		sending := w.begin(request{Op: "stream send", Data: []byte("after")})
		reader.cont()
		for a := (answer{}); string(a.Data) != "after"; {
			a = sub.begin(request{Op: "stream next"}).must()
		}
		sending.must()
		sub.close()
	}
}

// As in boost interprocess 163, but there the queue stays locked.
func TestStreamMessageOfADeadMemberIsRedelivered(t *testing.T) {
	st := newStore(t)
	procs := st.startN(4)
	w := procs[0].stream("k", 4096)
	var members []end
	for _, p := range procs[1:] {
		members = append(members, p.stream("k", 4096).subscribe("group g"))
	}
	w.send("1", "2", "3", "4")
	members[0].want("1")
	members[1].want("2")
	members[2].want("3", "4")
	waiting := members[2].begin(request{Op: "stream next"})
	procs[1].kill()
	if a := waiting.must(); string(a.Data) != "1" || !a.OK {
		t.Errorf("Next: %q, redelivered %v, want %q, true", a.Data, a.OK, "1")
	}
	w.send("5")
	members[1].want("5") // member 1 has done 2, and member 2 has 1
	procs[3].kill()
	members[1].wantRedelivered("1")
	w.send("6")
	members[1].want("6")
	w.close()
	_, err := members[1].try("stream next", "", 0)
	wantError(t, err, io.EOF)

	// A group whose members have all died goes on with the next member.
	w = procs[0].stream("k", 4096)
	w.send("7")
	members[1].want("7")
	procs[2].kill()
	w.send("8")
	last := w.subscribe("group g")
	last.want("8")
	last.wantRedelivered("7")
}

func TestStreamReaderLearnsThatTheWriterDied(t *testing.T) {
	st := newStore(t)
	procs := st.startN(4)
	sub := procs[0].stream("k", 4096).subscribe("")
	w := procs[1].stream("k", 4096)
	w.send("whole")
	w.begin(request{Op: "stream half", Data: []byte("half")}).must()
	sub.want("whole")
	waiting := sub.begin(request{Op: "stream next"})
	procs[1].kill()
	_, err := waiting.outcome()
	wantError(t, err, stream.ErrWriterDied)
	// Other writers go on.
	next, other := procs[2].stream("k", 4096), procs[3].stream("k", 4096)
	next.send("next")
	other.send("other")
	sub.want("next", "other")
	next.close()
	_, err = sub.try("stream next", "", 20*time.Millisecond) // other may still send
	wantError(t, err, context.DeadlineExceeded)
	other.close()
	_, err = sub.try("stream next", "", 0)
	wantError(t, err, io.EOF)
}

func TestStreamStoppedLatestReaderDelaysNoWriter(t *testing.T) {
	needStop(t)
	st := newStore(t)
	procs := st.startN(2)
	sub := procs[0].stream("k", 4096).subscribe("latest")
	procs[0].stop()
	w := procs[1].stream("k", 4096)
	w.begin(request{Op: "stream sends", N: 2000}).must()
	w.send("newest")
	w.begin(request{Op: "stream flush"}).must()
	procs[0].cont()
	if a := sub.begin(request{Op: "stream next"}).must(); string(a.Data) != "newest" || a.N != 2000 {
		t.Errorf("Next: %q, lost %d, want %q, 2000", a.Data, a.N, "newest")
	}
}
