package stream_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"

	"qshm/shm"
	"qshm/shm/stream"
)

// Each documented kind of error, and that the call has changed nothing.

func TestOpenErrors(t *testing.T) {
	dir := t.TempDir()
	for _, capacity := range []int{0, -1, -1 << 62 >> 32, 7, 63} {
		_, err := stream.Open("s", capacity, shm.Dir(dir))
		wantError(t, "Open with a capacity that is too small", err, shm.ErrSize)
	}
	if big := uint64(1<<33 + 1); uint64(int(big)) == big {
		_, err := stream.Open("s", int(big), shm.Dir(dir), shm.Sparse())
		wantError(t, "Open with a capacity that is too large", err, shm.ErrSize)
	}
	_, err := stream.Open("s", 4096, shm.Dir(dir), shm.ReadOnly())
	wantError(t, "Open with ReadOnly", err, shm.ErrReadOnly)
	_, err = stream.Stat("s", shm.Dir(dir))
	wantError(t, "Stat of a key without a segment", err, shm.ErrNotExist)
	if infos, err := shm.List(shm.Dir(dir)); err != nil || len(infos) != 0 {
		t.Errorf("after failed calls, the store contains %v, %v", infos, err)
	}

	s, err := stream.Open("s", 65, shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Capacity() != 72 || s.Key() != "s" || s.MaxMessage() != 24 {
		t.Errorf("capacity %d, messages up to %d, key %q", s.Capacity(), s.MaxMessage(), s.Key())
	}
	if other := open(t, dir, 1000); other.Capacity() != 72 {
		t.Errorf("a stream that exists has another capacity for a second process: %d", other.Capacity())
	}
	var own *shm.Error
	if _, err := stream.Open("s", 4096, shm.Dir(dir), shm.ReadOnly()); !errors.As(err, &own) || own.Key != "s" || own.Op != "open" {
		t.Errorf("the error is %#v", err)
	}
}

func TestSegmentThatIsNoStream(t *testing.T) {
	good := func(capacity uint64) []byte {
		b := make([]byte, ringOff+4096)
		copy(b, "qshmstrm")
		binary.NativeEndian.PutUint32(b[8:], 1)
		binary.NativeEndian.PutUint32(b[12:], ringOff)
		binary.NativeEndian.PutUint64(b[16:], capacity)
		return b
	}
	other := func(off int, v byte) []byte {
		b := good(4096)
		b[off] += v
		return b
	}
	for name, content := range map[string][]byte{
		"small":            good(4096)[:100],
		"without a ring":   good(4096)[:ringOff],
		"empty":            make([]byte, ringOff+4096),
		"magic":            other(7, 1),
		"version":          other(8, 1),
		"ring elsewhere":   other(12, 8),
		"capacity zero":    good(0),
		"capacity odd":     good(4095),
		"capacity small":   good(56),
		"capacity large":   good(4104),
		"capacity huge":    good(1<<64 - 8),
		"capacity 2^63":    good(1 << 63),
		"capacity 32 bits": good(1<<32 + 64),
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			seg, err := shm.Create("s", len(content), shm.Dir(dir))
			if err != nil {
				t.Fatal(err)
			}
			defer seg.Close()
			copy(seg.Data(), content)
			_, err = stream.Open("s", 4096, shm.Dir(dir))
			wantError(t, "Open", err, stream.ErrNotStream)
			_, err = stream.Stat("s", shm.Dir(dir))
			wantError(t, "Stat", err, stream.ErrNotStream)
			if string(seg.Data()) != string(content) {
				t.Error("the segment has changed")
			}
			if info, err := seg.Info(); err != nil || info.Attached != 1 {
				t.Errorf("%d attachments, %v", info.Attached, err)
			}
		})
	}
	dir := t.TempDir()
	seg, err := shm.Create("s", ringOff+4096, shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	copy(seg.Data(), good(4096))
	open(t, dir, 4096) // what the others differ from is a stream
}

func TestMessageTooLong(t *testing.T) {
	w := open(t, t.TempDir(), 64)
	sub := subscribe(t, w)
	wantError(t, "Send", w.Send(ctx, make([]byte, w.MaxMessage()+1)), shm.ErrSize)
	for _, n := range []int{-1, w.MaxMessage() + 1, 1 << 30} {
		_, err := w.Reserve(ctx, n)
		wantError(t, "Reserve", err, shm.ErrSize)
	}
	long := strings.Repeat("m", w.MaxMessage())
	send(t, w, "", long)
	want(t, sub, "", long)
}

func TestCallsAfterClose(t *testing.T) {
	dir := t.TempDir()
	keep := open(t, dir, 4096)
	s := open(t, dir, 4096)
	all, latest := subscribe(t, s), subscribe(t, s, stream.Latest())
	r, err := s.Reserve(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantError(t, "Commit", r.Commit(), stream.ErrClosed)
	wantError(t, "Abort", r.Abort(), stream.ErrClosed)
	wantError(t, "Send", s.Send(ctx, nil), stream.ErrClosed)
	_, err = s.Reserve(ctx, 1)
	wantError(t, "Reserve", err, stream.ErrClosed)
	_, err = s.Subscribe()
	wantError(t, "Subscribe", err, stream.ErrClosed)
	wantError(t, "Flush", s.Flush(ctx), stream.ErrClosed)
	wantError(t, "AwaitReader", s.AwaitReader(ctx), stream.ErrClosed)
	_, err = s.Info()
	wantError(t, "Info", err, stream.ErrClosed)
	for _, sub := range []*stream.Subscription{all, latest} {
		_, err = sub.Next(ctx)
		wantError(t, "Next", err, stream.ErrClosed)
		_, err = sub.Reader(ctx).Read(make([]byte, 1))
		wantError(t, "Read", err, stream.ErrClosed)
		if err := sub.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.Writer(ctx).Write([]byte("x")); !errors.Is(err, stream.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if err := s.Writer(ctx).Close(); err != nil {
		t.Error(err)
	}
	if info, err := keep.Info(); err != nil || info.Sent != 0 || info.Writers != 0 || len(info.Readers) != 0 {
		t.Errorf("%+v, %v", info, err)
	}

	sub := subscribe(t, keep)
	for range 2 {
		if err := sub.Close(); err != nil {
			t.Fatal(err)
		}
	}
	_, err = sub.Next(ctx)
	wantError(t, "Next after Close of the subscription", err, stream.ErrClosed)
}

// Calls that wait end when their context does, or when their stream is closed.
func TestWaitingCallsEnd(t *testing.T) {
	dir := t.TempDir()
	reader := open(t, dir, 64)
	sub := subscribe(t, reader) // behind
	for name, call := range map[string]func(ctx context.Context, s *stream.Stream) error{
		"Send":    func(ctx context.Context, s *stream.Stream) error { return s.Send(ctx, make([]byte, 24)) },
		"Reserve": func(ctx context.Context, s *stream.Stream) error { _, err := s.Reserve(ctx, 24); return err },
		"Flush":   func(ctx context.Context, s *stream.Stream) error { return s.Flush(ctx) },
		"Next": func(ctx context.Context, s *stream.Stream) error {
			sub, err := s.Subscribe()
			if err != nil {
				return err
			}
			defer sub.Close()
			_, err = sub.Next(ctx)
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, dir, 64)
			for fits := true; fits; {
				short, cancel := context.WithTimeout(ctx, 10e6)
				fits = reader.Send(short, make([]byte, 24)) == nil
				cancel()
			}
			short, cancel := context.WithTimeout(ctx, 10e6)
			defer cancel()
			err := call(short, s)
			wantError(t, "with a deadline", err, context.DeadlineExceeded)
			if (name == "Send" || name == "Reserve") && !strings.Contains(err.Error(), "64 bytes behind") {
				t.Errorf("the error does not say who is behind, and how far: %v", err)
			}
			cancelled, cancel := context.WithCancel(ctx)
			done := make(chan error)
			go func() { done <- call(cancelled, s) }()
			cancel()
			wantError(t, "cancelled", <-done, context.Canceled)
			go func() { done <- call(ctx, s) }()
			go s.Close()
			wantError(t, "closed", <-done, stream.ErrClosed)
		})
	}
	sub.Close()
	alone := open(t, dir, 64)
	short, cancel := context.WithTimeout(ctx, 10e6)
	defer cancel()
	wantError(t, "AwaitReader", alone.AwaitReader(short), context.DeadlineExceeded)
}

func TestNoRoom(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 4096)
	for _, name := range []string{"", strings.Repeat("g", 65)} {
		_, err := s.Subscribe(stream.Group(name))
		wantError(t, "Subscribe to a group of that name", err, stream.ErrGroup)
	}
	_, err := s.Subscribe(stream.Group("g"), stream.Latest())
	wantError(t, "Subscribe to the latest of a group", err, stream.ErrGroup)
	if info, err := s.Info(); err != nil || len(info.Readers) != 0 {
		t.Errorf("%+v, %v", info, err)
	}

	var subs []*stream.Subscription
	for i := range 16 {
		subs = append(subs, subscribe(t, s, stream.Group(strings.Repeat("g", 64-i))))
	}
	_, err = s.Subscribe(stream.Group("one more"))
	wantError(t, "Subscribe to a 17th group", err, shm.ErrNoSpace)
	subs[3].Close()
	subs[3] = subscribe(t, s, stream.Group("one more"))
	for len(subs) < 64 {
		subs = append(subs, subscribe(t, s))
	}
	_, err = s.Subscribe()
	wantError(t, "the 65th subscription", err, shm.ErrNoSpace)
	send(t, s, "to all")
	for _, sub := range subs {
		want(t, sub, "to all")
	}
	subs[40].Close()
	subscribe(t, s, stream.Latest())

	dir = t.TempDir()
	for i := range 65 {
		s, err := stream.Open("s", 4096, shm.Dir(dir), shm.MaxAttachments(100))
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Send(ctx, nil); i == 64 {
			wantError(t, "Send of the 65th writer", err, shm.ErrNoSpace)
		} else if err != nil {
			t.Fatal(err)
		}
	}
}

func TestTruncatedFile(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir, 1<<20)
	sub := subscribe(t, s)
	send(t, s, "x")
	infos, err := shm.List(shm.Dir(dir))
	if err != nil || len(infos) != 1 {
		t.Fatal(infos, err)
	}
	truncate(t, dir)
	wantError(t, "Send", s.Send(ctx, make([]byte, 1<<18)), shm.ErrCorrupt)
	_, err = sub.Next(ctx)
	wantError(t, "Next", err, shm.ErrCorrupt)
	_, err = s.Subscribe()
	wantError(t, "Subscribe", err, shm.ErrCorrupt)
	_, err = s.Info()
	wantError(t, "Info", err, shm.ErrCorrupt)
	wantError(t, "Flush", s.Flush(ctx), shm.ErrCorrupt)
	if err := sub.Close(); err != nil {
		t.Error(err)
	}
}

func TestWriterDiedIsNotEOF(t *testing.T) {
	if errors.Is(stream.ErrWriterDied, io.EOF) {
		t.Error("a loop over Messages would end without an error")
	}
}
