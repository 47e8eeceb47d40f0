package stream_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

var ctx = context.Background()

func open(t testing.TB, dir string, capacity int) *stream.Stream {
	t.Helper()
	s, err := stream.Open("s", capacity, shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func subscribe(t testing.TB, s *stream.Stream, opts ...stream.Option) *stream.Subscription {
	t.Helper()
	sub, err := s.Subscribe(opts...)
	if err != nil {
		t.Fatal(err)
	}
	return sub
}

func send(t testing.TB, s *stream.Stream, messages ...string) {
	t.Helper()
	for _, m := range messages {
		if err := s.Send(ctx, []byte(m)); err != nil {
			t.Fatal(err)
		}
	}
}

func want(t testing.TB, sub *stream.Subscription, messages ...string) {
	t.Helper()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	for _, m := range messages {
		got, err := sub.Next(limited)
		if err != nil || string(got) != m {
			t.Fatalf("Next: %q, %v, want %q", got, err, m)
		}
	}
}

func wantError(t testing.TB, what string, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("%s: %v, want %v", what, err, kind)
	}
}

func TestEveryReaderGetsEveryMessage(t *testing.T) {
	dir := t.TempDir()
	a, b := open(t, dir, 4096), open(t, dir, 4096)
	send(t, a, "before")
	one, two, old := subscribe(t, a), subscribe(t, b), subscribe(t, b, stream.FromOldest())
	want(t, old, "before")
	for i := range 1000 {
		m := fmt.Sprint("message ", i)
		send(t, a, m)
		want(t, one, m)
		want(t, two, m)
		want(t, old, m)
	}
	a.Close()
	_, err := two.Next(ctx)
	wantError(t, "Next after the writer has closed", err, io.EOF)
}

func TestGroupMembersShare(t *testing.T) {
	dir := t.TempDir()
	w, a, b := open(t, dir, 4096), open(t, dir, 4096), open(t, dir, 4096)
	one, two := subscribe(t, a, stream.Group("g")), subscribe(t, b, stream.Group("g"))
	for i := range 500 {
		send(t, w, fmt.Sprint(2*i), fmt.Sprint(2*i+1))
		want(t, one, fmt.Sprint(2*i))
		want(t, two, fmt.Sprint(2*i+1))
	}
	send(t, w, "last")
	want(t, one, "last")
	one.Close()
	send(t, w, "next")
	want(t, two, "next")
	w.Close()
	_, err := two.Next(ctx)
	wantError(t, "Next", err, io.EOF)
}

func TestLatestPassesOver(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, 4096)
	sub := subscribe(t, w, stream.Latest())
	for i := range 1000 {
		send(t, w, fmt.Sprint(i))
	}
	want(t, sub, "999")
	if sub.Lost() != 999 {
		t.Errorf("lost %d", sub.Lost())
	}
}

func TestSendWaitsForSlowReader(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, 256)
	r := open(t, dir, 256)
	sub := subscribe(t, r)
	done := make(chan error)
	go func() {
		for i := range 1000 {
			if err := w.Send(ctx, fmt.Append(nil, "number ", i)); err != nil {
				done <- err
				return
			}
		}
		done <- w.Flush(ctx)
	}()
	for i := range 1000 {
		want(t, sub, fmt.Sprint("number ", i))
	}
	go sub.Next(ctx)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	go func() { time.Sleep(10 * time.Millisecond); r.Close() }()
	_ = sub
}

func BenchmarkSendNext(b *testing.B) {
	for _, size := range []int{64, 4096, 65536} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			dir := b.TempDir()
			w, r := open(b, dir, 4<<20), open(b, dir, 4<<20)
			sub := subscribe(b, r)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			go func() {
				m := make([]byte, size)
				for range b.N {
					w.Send(ctx, m)
				}
			}()
			for range b.N {
				if _, err := sub.Next(ctx); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkSendAlone(b *testing.B) {
	w := open(b, b.TempDir(), 1<<20)
	m := make([]byte, 64)
	for b.Loop() {
		w.Send(ctx, m)
	}
}

func BenchmarkSendNextAlone(b *testing.B) {
	w := open(b, b.TempDir(), 1<<20)
	sub := subscribe(b, w)
	m := make([]byte, 64)
	for b.Loop() {
		w.Send(ctx, m)
		sub.Next(ctx)
	}
}
