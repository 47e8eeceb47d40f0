//go:build linux

package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"qshm/shm/stream"
)

// The library's streams: see measure_messages.go. Before version 0.2 there were none.

func init() {
	qshmPeer.ops["messages"] = qshmMessages
	qshmPeer.ops["hand"] = qshmHand
}

func openStream(w *worker, key string) (*stream.Stream, error) {
	return stream.Open(key, w.number("ring", 1<<20))
}

// readerOptions says what the subscriptions of a run are.
func readerOptions(w *worker) []stream.Option {
	if w.arg("group") != "" {
		return []stream.Option{stream.Group(w.arg("group"))}
	}
	return nil
}

// qshmMessages sends n messages, or reads them in place. With place=1, they are
// written in place too: a number at both ends, and the rest as it is.
func qshmMessages(w *worker) error {
	s, err := openStream(w, w.arg("key"))
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	if w.number("create", 0) == 1 {
		return sendMessages(w, s)
	}
	r, err := s.Subscribe(readerOptions(w)...)
	if err != nil {
		return err
	}
	ctx := context.Background()
	n, warm, group := w.number("n", 100), w.number("warm", 2), w.arg("group") != ""
	return w.measure(func(int64) (figures, error) {
		begin, cpu := w.now(), cpuTime()
		pace := newPace(n, w.number("slots", 2))
		got := 0
		for i := 1; ; i++ {
			b, err := r.Next(ctx)
			if err == io.EOF {
				break
			}
			if err != nil {
				return figures{}, err
			}
			if !group && !marked(b, int64(i)) {
				return figures{}, fmt.Errorf("message %d arrived damaged", i)
			}
			got++
			if i == warm {
				begin, cpu = w.now(), cpuTime()
				pace.start()
			} else if i > warm && i <= n+warm {
				pace.step()
			}
		}
		if !group && got != n+warm {
			return figures{}, fmt.Errorf("%d messages arrived, not %d", got, n+warm)
		}
		return figures{N: int64(got), Begin: begin, End: w.now(), CPU: cpuTime() - cpu, Op: pace.each()}, nil
	})
}

func sendMessages(w *worker, s *stream.Stream) error {
	ctx := context.Background()
	n, warm, place := w.number("n", 100), w.number("warm", 2), w.number("place", 0) == 1
	b := make([]byte, w.number("size", 64))
	return w.measure(func(int64) (figures, error) {
		begin, cpu, before := w.now(), cpuTime(), mallocs()
		for i := 1; i <= n+warm; i++ {
			if i == warm+1 {
				begin, cpu, before = w.now(), cpuTime(), mallocs()
			}
			if place {
				r, err := s.Reserve(ctx, len(b))
				if err != nil {
					return figures{}, err
				}
				mark(r.Bytes(), int64(i))
				if err := r.Commit(); err != nil {
					return figures{}, err
				}
				continue
			}
			mark(b, int64(i))
			if err := s.Send(ctx, b); err != nil {
				return figures{}, err
			}
		}
		f := figures{N: int64(n), Begin: begin, End: w.now(), CPU: cpuTime() - cpu, Alloc: float64(mallocs()-before) / float64(n)}
		return f, s.Writer(ctx).Close()
	})
}

// qshmHand hands a message of a size to and fro, in place, each stamped right before
// Reserve.
func qshmHand(w *worker) error {
	first := w.number("create", 0) == 1
	var there, back *stream.Stream
	var err error
	if there, err = openStream(w, w.arg("key")+"-there"); err != nil {
		return err
	}
	defer func() { _ = there.Close() }()
	if back, err = openStream(w, w.arg("key")+"-back"); err != nil {
		return err
	}
	defer func() { _ = back.Close() }()
	in, out := there, back
	if first {
		in, out = back, there
	}
	r, err := in.Subscribe()
	if err != nil {
		return err
	}
	ctx := context.Background()
	return w.measure(func(int64) (figures, error) {
		if err := out.AwaitReader(ctx); err != nil {
			return figures{}, err
		}
		var h hist
		n, size := w.number("n", 1000), w.number("size", 64)
		for range n {
			for _, mine := range []bool{first, !first} {
				if !mine {
					b, err := r.Next(ctx)
					if err != nil {
						return figures{}, err
					}
					h.add(w.now() - int64(binary.NativeEndian.Uint64(b)))
					continue
				}
				at := w.now()
				m, err := out.Reserve(ctx, size)
				if err != nil {
					return figures{}, err
				}
				binary.NativeEndian.PutUint64(m.Bytes(), uint64(at))
				if err := m.Commit(); err != nil {
					return figures{}, err
				}
			}
		}
		return figures{N: int64(n), Max: h.max, Hist: &h}, nil
	})
}
