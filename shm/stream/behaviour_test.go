package stream_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"time"

	"qshm/shm/stream"
)

func TestReservation(t *testing.T) {
	w := open(t, t.TempDir(), 256)
	sub := subscribe(t, w)
	for i := range 100 {
		r, err := w.Reserve(ctx, 5)
		if err != nil {
			t.Fatal(err)
		}
		if len(r.Bytes()) != 5 || cap(r.Bytes()) != 5 {
			t.Fatalf("%d bytes, room for %d", len(r.Bytes()), cap(r.Bytes()))
		}
		copy(r.Bytes(), "never")
		if err := r.Abort(); err != nil {
			t.Fatal(err)
		}
		if r, err = w.Reserve(ctx, 4); err != nil {
			t.Fatal(err)
		}
		copy(r.Bytes(), fmt.Sprintf("%04d", i))
		if err := r.Commit(); err != nil {
			t.Fatal(err)
		}
		want(t, sub, fmt.Sprintf("%04d", i))
	}
	r, err := w.Reserve(ctx, 4)
	if err != nil {
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	wantError(t, "Send beside a reservation", w.Send(short, nil), context.DeadlineExceeded)
	r.Abort()
	send(t, w, "after")
	want(t, sub, "after")
}

// Flush waits for readers of every message and for groups, and for nobody else.
func TestFlush(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, 4096)
	send(t, w, "x")
	if err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	subscribe(t, w, stream.Latest())
	all, member := subscribe(t, w), subscribe(t, w, stream.Group("g"))
	if err := w.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	send(t, w, "y")
	short := func() error {
		short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
		defer cancel()
		return w.Flush(short)
	}
	ask := func(sub *stream.Subscription) {
		t.Helper()
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		_, err := sub.Next(short)
		wantError(t, "Next", err, context.DeadlineExceeded)
	}
	wantError(t, "Flush before it was read", short(), context.DeadlineExceeded)
	want(t, all, "y")
	want(t, member, "y")
	wantError(t, "Flush before the readers ask for the next one", short(), context.DeadlineExceeded)
	ask(all)
	wantError(t, "Flush before the member asks for the next one", short(), context.DeadlineExceeded)
	done := make(chan error)
	go func() { done <- w.Flush(ctx) }()
	ask(member)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	send(t, w, "z")
	go func() { done <- w.Flush(ctx) }()
	want(t, member, "z")
	member.Close()
	all.Close()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestAwaitReader(t *testing.T) {
	dir := t.TempDir()
	w, r := open(t, dir, 4096), open(t, dir, 4096)
	done := make(chan error)
	go func() { done <- w.AwaitReader(ctx) }()
	sub := subscribe(t, r)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	sub.Close()
	subscribe(t, r, stream.Latest())
	if err := w.AwaitReader(ctx); err != nil {
		t.Fatal(err)
	}
}

// Bytes through a Writer arrive as they were at a Reader, whatever the pieces.
func TestWriterAndReader(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 256), open(t, dir, 256)
	sub := subscribe(t, s)
	text := make([]byte, 100_000)
	for i := range text {
		text[i] = byte(rand.Uint32())
	}
	done := make(chan error)
	go func() {
		wr := w.Writer(ctx)
		for rest := text; len(rest) > 0; {
			n := min(len(rest), 1+rand.IntN(500))
			if m, err := wr.Write(rest[:n]); err != nil || m != n {
				done <- fmt.Errorf("Write: %d, %v", m, err)
				return
			}
			rest = rest[n:]
		}
		done <- wr.Close()
	}()
	r := sub.Reader(ctx)
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes of %d, %v", len(got), len(text), err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

// A Writer that has written nothing ends readers too.
func TestEmptyWriter(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 256), open(t, dir, 256)
	sub := subscribe(t, s)
	if err := w.Writer(ctx).Close(); err != nil {
		t.Fatal(err)
	}
	_, err := sub.Next(ctx)
	wantError(t, "Next", err, io.EOF)
	send(t, w, "again") // a writer that comes later
	want(t, sub, "again")
	w.Close()
	for range sub.Messages(ctx) {
		t.Error("a message too many")
		break
	}
}

func TestMessages(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 4096), open(t, dir, 4096)
	sub := subscribe(t, s)
	send(t, w, "a", "b", "c")
	w.Close()
	var got []string
	for m, err := range sub.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		if got = append(got, string(m)); len(got) == 1 {
			break
		}
	}
	for m, err := range sub.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(m))
	}
	if fmt.Sprint(got) != "[a b c]" {
		t.Error(got)
	}
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	open(t, dir, 4096).Writer(ctx) // no writer yet
	n := 0
	sub = subscribe(t, s)
	for _, err := range sub.Messages(cancelled) {
		wantError(t, "Messages", err, context.Canceled)
		n++
	}
	if n != 1 {
		t.Errorf("an error %d times", n)
	}
}

// A context that has ended makes Next a look: it returns what is there.
func TestNextWithoutWaiting(t *testing.T) {
	s := open(t, t.TempDir(), 4096)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	for name, options := range map[string][]stream.Option{
		"every message": nil, "the latest": {stream.Latest()}, "in a group": {stream.Group("g")},
	} {
		sub := subscribe(t, s, options...)
		for _, want := range []string{"a", "b"} {
			_, err := sub.Next(ended)
			wantError(t, name, err, context.Canceled)
			send(t, s, want)
			if m, err := sub.Next(ended); err != nil || string(m) != want {
				t.Errorf("%s: %q, %v, want %q", name, m, err, want)
			}
		}
		sub.Close()
	}
}

// FromOldest begins at the oldest message that the ring holds.
func TestFromOldest(t *testing.T) {
	w := open(t, t.TempDir(), 256)
	for i := range 100 {
		send(t, w, fmt.Sprintf("%08d", i))
	}
	sub := subscribe(t, w, stream.FromOldest())
	info, err := w.Info()
	if err != nil {
		t.Fatal(err)
	}
	kept := info.Used / 16
	if kept < 10 || kept > 16 {
		t.Errorf("the ring holds %d messages", kept)
	}
	for i := 100 - kept; i < 100; i++ {
		want(t, sub, fmt.Sprintf("%08d", i))
	}
	latest := subscribe(t, w, stream.FromOldest(), stream.Latest())
	want(t, latest, fmt.Sprintf("%08d", 99))
	if latest.Lost() != uint64(kept-1) {
		t.Errorf("lost %d of %d", latest.Lost(), kept)
	}
}

// A reader with Latest holds up nobody, gets no torn message while a writer overwrites
// the ring, and counts what it has not got.
func TestLatestBesideFastWriter(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 4096), open(t, dir, 4096)
	sub := subscribe(t, s, stream.Latest())
	const n = 20000
	done := make(chan error, 1)
	go func() {
		for i := range n {
			if err := w.Send(ctx, bytes.Repeat([]byte{byte(i)}, i%1500)); err != nil {
				done <- err
				return
			}
		}
		done <- w.Writer(ctx).Close()
	}()
	got := uint64(0)
	for m, err := range sub.Messages(ctx) {
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range m {
			if b != m[0] {
				t.Fatalf("torn: %d beside %d in %d bytes", b, m[0], len(m))
			}
		}
		got++
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if got+sub.Lost() != n {
		t.Errorf("got %d, lost %d, sent %d", got, sub.Lost(), n)
	}
}

// A group goes on where it was when its members have closed, or with what is left.
func TestGroupWithoutMembers(t *testing.T) {
	w := open(t, t.TempDir(), 256)
	g := subscribe(t, w, stream.Group("g"))
	send(t, w, "1", "2", "3")
	want(t, g, "1")
	g.Close()
	g = subscribe(t, w, stream.Group("g"))
	want(t, g, "2")
	g.Close()
	for i := range 100 {
		send(t, w, fmt.Sprintf("%08d", i))
	}
	info, err := w.Info()
	if err != nil {
		t.Fatal(err)
	}
	g = subscribe(t, w, stream.Group("g"))
	for i := 100 - info.Used/16; i < 100; i++ {
		want(t, g, fmt.Sprintf("%08d", i))
	}
	if g.Redelivered() {
		t.Error("delivered again")
	}
}

// A member that never calls Next keeps the messages of its group for other members.
func TestMemberKeepsMessagesForOthers(t *testing.T) {
	w := open(t, t.TempDir(), 256)
	worker := subscribe(t, w, stream.Group("g"))
	subscribe(t, w, stream.Group("g")) // the keeper
	send(t, w, "0", "1")
	want(t, worker, "0")
	worker.Close()
	full, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	sent := 2
	for ; w.Send(full, []byte(fmt.Sprint(sent))) == nil; sent++ {
	}
	worker = subscribe(t, w, stream.Group("g"))
	for i := 1; i < sent; i++ {
		want(t, worker, fmt.Sprint(i))
	}
}

// A member that waits does not end while another holds a message.
func TestMemberWaitsForOthers(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 4096), open(t, dir, 4096)
	a, b := subscribe(t, s, stream.Group("g")), subscribe(t, s, stream.Group("g"))
	send(t, w, "job")
	want(t, a, "job")
	w.Close()
	short, cancel := context.WithTimeout(ctx, 5*time.Millisecond)
	defer cancel()
	_, err := b.Next(short)
	wantError(t, "Next while another member has a message", err, context.DeadlineExceeded)
	done := make(chan error)
	go func() {
		_, err := b.Next(ctx)
		done <- err
	}()
	_, err = a.Next(ctx)
	wantError(t, "Next", err, io.EOF)
	wantError(t, "Next", <-done, io.EOF)
}

func TestInfo(t *testing.T) {
	w := open(t, t.TempDir(), 4096)
	subscribe(t, w, stream.Latest())
	all, member := subscribe(t, w), subscribe(t, w, stream.Group("g"))
	send(t, w, "12345678", "12345678")
	want(t, all, "12345678")
	want(t, member, "12345678")
	info, err := w.Info()
	if err != nil || info.Sent != 2 || info.Used != 32 || info.Capacity != 4096 || info.Writers != 1 || len(info.Readers) != 3 {
		t.Fatalf("%+v, %v", info, err)
	}
	if r := info.Readers; !r[0].Latest || r[1].Latest || r[2].Group != "g" || r[1].Behind != 32 || r[2].Behind != 32 {
		t.Errorf("%+v", r)
	}
}

// Neither sending nor receiving takes memory from the heap.
func TestNoAllocation(t *testing.T) {
	dir := t.TempDir()
	w, s := open(t, dir, 4096), open(t, dir, 4096)
	all, latest, member := subscribe(t, s), subscribe(t, s, stream.Latest()), subscribe(t, s, stream.Group("g"))
	m := make([]byte, 100)
	var failed error
	round := func() {
		r, err := w.Reserve(ctx, 100)
		failed = errors.Join(failed, err, r.Commit(), w.Send(ctx, m))
		for _, sub := range []*stream.Subscription{all, all, member, member, latest} {
			_, err := sub.Next(ctx)
			failed = errors.Join(failed, err)
		}
	}
	round()
	if n := testing.AllocsPerRun(500, round); n != 0 || failed != nil {
		t.Errorf("%v allocations for two messages, %v", n, failed)
	}
	// So it is when a reader waits: for a writer that is at work, and asleep.
	member.Close()
	for _, pause := range []time.Duration{0, time.Millisecond} {
		const n = 200
		done := make(chan error)
		go func() {
			for range 2 * n { // AllocsPerRun calls twice
				if _, err := all.Next(ctx); err != nil {
					done <- err
					return
				}
			}
			done <- nil
		}()
		mallocs := testing.AllocsPerRun(1, func() {
			for range n {
				time.Sleep(pause)
				failed = errors.Join(failed, w.Send(ctx, m))
			}
		})
		if err := <-done; err != nil || failed != nil {
			t.Error(err, failed)
		}
		if mallocs > n/10 {
			t.Errorf("%v allocations for %d messages, every %v", mallocs, n, pause)
		}
	}
}
