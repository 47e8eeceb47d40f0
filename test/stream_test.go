package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"qshm/shm"
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
	// Data is what kind of subscription; "group NAME" is a member.
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
	// half reserves room, and writes a part of a message there.
	extra["stream half"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		res, err := ends.get(r.Handle).(*stream.Stream).Reserve(ctx, 2*len(r.Data))
		if err == nil {
			copy(res.Bytes(), r.Data)
		}
		return err
	}
	extra["stream next"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		m, err := sub.Next(ctx)
		a.Data, a.OK = slices.Clone(m), err == nil && sub.Redelivered()
		a.N = int(sub.Lost())
		return err
	}
	// sends sends N numbered messages of the writer Off.
	extra["stream sends"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		s := ends.get(r.Handle).(*stream.Stream)
		for i := range r.N {
			if err := s.Send(ctx, parcel(uint32(r.Off), uint32(i), i%100)); err != nil {
				return err
			}
		}
		return nil
	}
	// drain reads to the end, and returns how many messages of each writer came: 0 up to
	// the number, in order.
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
				return fmt.Errorf("message %d of writer %d after %d", n, writer, counts[writer])
			}
			counts[writer]++
			a.N++
		}
		a.Data = fmt.Append(nil, counts)
		return nil
	}
}

// ends are the streams and subscriptions of this process.
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

// parcel makes a message that shows who sent it, and whether it is torn.
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

func opened(b []byte) (writer, n uint32, err error) {
	if len(b) < 12 || crc32.ChecksumIEEE(b[4:]) != binary.LittleEndian.Uint32(b) {
		return 0, 0, fmt.Errorf("torn: %d bytes, % x…", len(b), b[:min(len(b), 40)])
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
			e.p.t.Fatalf("Next: %q, redelivered %v, want %q", got.Data, got.OK, m)
		}
	}
}

func (e end) close() { e.p.t.Helper(); e.begin(request{Op: "stream close"}).must() }

func TestStreamEachReaderGetsAllOnceInOrder(t *testing.T) {
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
		w.send(string(parcel(99, uint32(len(sends)), 0))) // all are writers before the first ends
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
			t.Errorf("got %d messages of %d: %s", a.N, writers*(n+1), a.Data)
		}
	}
}

func TestStreamDeadReaderHoldsNobodyUp(t *testing.T) {
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
		t.Errorf("got %d messages", a.N)
	}
}

func TestStreamSendNamesStoppedReader(t *testing.T) {
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
			t.Errorf("the error does not say which process is behind, and how far: %v", err)
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

func TestStreamRedelivered(t *testing.T) {
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
		t.Errorf("%q, redelivered %v", a.Data, a.OK)
	}
	w.send("5")
	members[1].want("5") // 2 is done, 1 is with another
	procs[3].kill()
	if a := members[1].begin(request{Op: "stream next"}).must(); string(a.Data) != "1" || !a.OK {
		t.Errorf("%q, redelivered %v", a.Data, a.OK)
	}
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
	if a := last.begin(request{Op: "stream next"}).must(); string(a.Data) != "7" || !a.OK {
		t.Errorf("%q, redelivered %v", a.Data, a.OK)
	}
}

func TestStreamWriterDies(t *testing.T) {
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
	// Another one goes on.
	next, other := procs[2].stream("k", 4096), procs[3].stream("k", 4096)
	next.send("next")
	other.send("other")
	sub.want("next", "other")
	next.close()
	if _, err := sub.try("stream next", "", 20*time.Millisecond); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Next with a writer that may send: %v", err)
	}
	other.close()
	_, err = sub.try("stream next", "", 0)
	wantError(t, err, io.EOF)
}

func TestStreamLatestHoldsNobodyUp(t *testing.T) {
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
		t.Errorf("%q, lost %d", a.Data, a.N)
	}
}

// The storm: workers that are writers, readers and members of a group are killed at
// random instants.

const streamStormMembers = "group g"

func init() {
	// It sends parcels of the writer Off until the process dies.
	extra["stream storm writer"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		s := ends.get(r.Handle).(*stream.Stream)
		rnd := rand.New(rand.NewPCG(uint64(r.Off), 1))
		for n := uint32(0); ; n++ {
			if err := s.Send(ctx, parcel(uint32(r.Off), n, rnd.IntN(200))); err != nil {
				return err
			}
		}
	}
	// It reads for ever and checks that no message is torn, and that those of each writer
	// come in order, each once. If N is 0, it may come in their middle; 2: a member, which
	// gets some out of order.
	extra["stream storm reader"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		next := map[uint32]uint32{}
		for {
			m, err := sub.Next(ctx)
			switch {
			case errors.Is(err, stream.ErrWriterDied), errors.Is(err, io.EOF):
				time.Sleep(time.Millisecond)
				continue
			case errors.Is(err, context.Canceled):
				return nil
			case err != nil:
				return err
			}
			writer, n, err := opened(m)
			if err != nil {
				return err
			}
			if want, ok := next[writer]; r.N != 2 && ok && n != want || !ok && n != 0 && a.N > 0 && r.N == 1 {
				return fmt.Errorf("message %d of writer %d, want %d", n, writer, want)
			}
			next[writer] = n + 1
			a.N++
		}
	}
	// A member marks in a segment what it was given: a counter per message, which it
	// counts up while it has the message.
	extra["stream storm member"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		seg, err := shm.Attach("marks")
		if err != nil {
			return err
		}
		marks := seg.Data()
		for {
			m, err := sub.Next(ctx)
			switch {
			case errors.Is(err, stream.ErrWriterDied), errors.Is(err, io.EOF):
				time.Sleep(time.Millisecond)
				continue
			case errors.Is(err, context.Canceled):
				return nil
			case err != nil:
				return err
			}
			_, n, err := opened(m)
			if err != nil {
				return err
			}
			at := int(n) % len(marks)
			if marks[at] != 0 && !sub.Redelivered() {
				return fmt.Errorf("message %d came again, and nobody says so", n)
			}
			marks[at]++
			if n%64 == 0 {
				time.Sleep(100 * time.Microsecond) // so that some die with a message
			}
			a.N++
		}
	}
}

// Readers and a keeper live on; writers and members are killed.
func TestStreamStorm(t *testing.T) {
	kills := *stormKills
	if kills == 0 {
		kills = 300
	}
	if testing.Short() {
		kills = min(kills, 40)
	}
	rnd := stormRand(t)
	st := newStore(t)
	keepers := st.startN(2)
	const capacity = 4096
	all := keepers[0].stream("k", capacity).subscribe("")
	reading := all.begin(request{Op: "stream storm reader", N: 1})
	for killed := 0; killed < kills && !t.Failed(); {
		procs := st.startN(4)
		var calls []*pending
		for i, p := range procs {
			s := p.stream("k", capacity)
			switch i {
			case 0, 1:
				calls = append(calls, s.begin(request{Op: "stream storm writer", Off: int64(rnd.Uint32())}))
			case 2:
				calls = append(calls, s.subscribe("").begin(request{Op: "stream storm reader"}))
			case 3:
				calls = append(calls, s.subscribe(streamStormMembers).begin(request{Op: "stream storm reader", N: 2}))
			}
		}
		for _, i := range rnd.Perm(len(procs)) {
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
			procs[i].kill()
			killed++
			if _, err := calls[i].outcome(); !errors.Is(err, errEnded) {
				t.Errorf("worker %d: %v", i, err)
			}
		}
		if reading.done() {
			break
		}
		// The next ones go on, whatever the dead have left.
		w := keepers[1].stream("k", capacity)
		member := w.subscribe(streamStormMembers)
		sent := string(parcel(uint32(killed)+1<<31, 0, 10))
		sending := w.begin(request{Op: "stream send", Data: []byte(sent)}) // the ring may be full of what the group has not read
		for a := (answer{}); string(a.Data) != sent; {
			a = member.begin(request{Op: "stream next"}).must()
			if _, _, err := opened(a.Data); err != nil {
				t.Fatal(err)
			}
		}
		sending.must()
		w.close()
	}
	reading.cancel()
	if a := reading.must(); a.N == 0 {
		t.Error("no message came")
	}
	all.close()
}

// Jobs of one writer that lives on are each given to a member, and again only if that
// has died, while members are killed.
func TestStreamGroupStorm(t *testing.T) {
	rnd := stormRand(t)
	st := newStore(t)
	const jobs = 1 << 20
	keeper := st.start()
	marks := keeper.create("marks", jobs)
	w := keeper.stream("k", 4096)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	// This member keeps the group from going on without a live member.
	steady := st.start()
	ss := steady.stream("k", 4096)
	member := ss.subscribe(streamStormMembers)
	working := member.begin(request{Op: "stream storm member"})
	sending := w.begin(request{Op: "stream storm writer", Off: 7})
	killed := 0
	for range rounds {
		procs := st.startN(3)
		var calls []*pending
		for _, p := range procs {
			calls = append(calls, p.stream("k", 4096).subscribe(streamStormMembers).begin(request{Op: "stream storm member"}))
		}
		for _, i := range rnd.Perm(len(procs)) {
			time.Sleep(time.Duration(rnd.IntN(3000)) * time.Microsecond)
			procs[i].kill()
			killed++
			if _, err := calls[i].outcome(); !errors.Is(err, errEnded) {
				t.Errorf("member: %v", err)
			}
		}
		if working.done() || t.Failed() {
			break
		}
		if marks.peek(jobs*3/4, 1) != "\x00" {
			break // not twice around
		}
	}
	sending.cancel()
	sending.outcome()
	w.begin(request{Op: "stream flush"}).must() // all are done
	working.cancel()
	if a := working.must(); a.N == 0 {
		t.Error("the member had no job")
	}
	data := marks.peek(0, jobs)
	sent, again := strings.IndexByte(data, 0), 0
	for i, n := range []byte(data) {
		if n == 0 && i < sent || n != 0 && i >= sent {
			t.Fatalf("job %d was given %d times; job %d never", i, n, sent)
		}
		again += int(max(n, 1) - 1)
	}
	if again > killed {
		t.Errorf("%d jobs were given again, and %d members died", again, killed)
	}
	t.Logf("%d jobs, %d of them again, %d members killed", sent, again, killed)
	ss.close()
	w.close()
}
