package stream

import (
	"context"
	"encoding/binary"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"sync/atomic"
)

// Writer returns an io.WriteCloser that sends what is written, in messages as long as
// they may be. Subscription.Reader joins them again. Close says that this process
// sends nothing more, also if it has sent nothing at all: with the last writer, readers
// get io.EOF. The Stream stays open.
//
// Errors of Write and Close: those of Send.
func (s *Stream) Writer(ctx context.Context) io.WriteCloser {
	return &writer{s, ctx}
}

type writer struct {
	s   *Stream
	ctx context.Context
}

func (w *writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		piece := p[n:min(len(p), n+w.s.MaxMessage())]
		if err := w.s.Send(w.ctx, piece); err != nil {
			return n, err
		}
		n += len(piece)
	}
	return n, nil
}

func (w *writer) Close() (err error) {
	s := w.s
	if !s.section.enter() {
		return nil // Close of the Stream has done it
	}
	locked := false
	defer s.finish("close", &s.section, &locked, debug.SetPanicOnFault(true), &err)
	if s.writer.Load() == 0 {
		if err := s.lock(w.ctx, &s.section); err != nil {
			return fail("close", s.key, err)
		}
		locked = true
		if err := s.becomeWriter(); err != nil {
			return fail("close", s.key, err)
		}
		locked = false
		if err := s.unlock("close"); err != nil {
			return err
		}
	}
	s.closeWriter()
	return nil
}

// Reader returns an io.ReadCloser over the bytes of the messages, whatever their
// boundaries. Close closes the subscription.
//
// Errors of Read: those of Next.
func (r *Subscription) Reader(ctx context.Context) io.ReadCloser {
	return &reader{r: r, ctx: ctx}
}

type reader struct {
	r    *Subscription
	ctx  context.Context
	rest []byte // of the last message
}

func (r *reader) Read(p []byte) (n int, err error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(r.rest) == 0 {
		message, err := r.r.Next(r.ctx)
		if err != nil {
			return 0, err
		}
		r.rest = message
	}
	sub, locked := r.r, false
	if !sub.section.enter() {
		return 0, fail("read", sub.s.key, ErrClosed)
	}
	defer sub.s.finish("read", &sub.section, &locked, debug.SetPanicOnFault(true), &err)
	n = copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, nil
}

func (r *reader) Close() error {
	r.rest = nil
	return r.r.Close()
}

var pid = os.Getpid()

// loadsInOrder: these processors do not move a load before an earlier one.
const loadsInOrder = runtime.GOARCH == "amd64" || runtime.GOARCH == "386" || runtime.GOARCH == "s390x"

// copyWords copies src, which words begins with, to dst. Another process may be writing
// to it. Where loads may be delayed beyond the look at head that follows, only atomic
// ones keep the order.
func copyWords(dst []byte, words []atomic.Uint64, src []byte) {
	if loadsInOrder {
		copy(dst, src)
		return
	}
	for i := 0; 8*i < len(dst); i++ {
		binary.NativeEndian.PutUint64(dst[8*i:], words[i].Load())
	}
}
