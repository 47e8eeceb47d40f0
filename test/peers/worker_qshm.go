//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"qshm/shm"
)

// qshmPeer is the library itself, by its documented calls. Each loop contains the calls that it repeats, because a call
// through a func value would take as long as some of them.
var qshmPeer = goPeer{us, us, "", map[string]func(*worker) error{
	"lock":     qshmLock,
	"contend":  qshmContend,
	"hold":     qshmHold,
	"attach":   qshmAttach,
	"create":   qshmCreate,
	"update":   qshmUpdate,
	"snapshot": qshmSnapshot,
	"ping":     qshmPing,
	"move":     qshmMove,
	"allocs":   qshmAllocs,
	"crowd":    qshmCrowd,
	"asked":    qshmAsked,
	"queue":    qshmQueue,
	"await":    qshmAwait,
}}

// open attaches, or creates with create=1.
func (w *worker) open(size int) (*shm.Segment, error) {
	if w.number("create", 0) == 1 {
		return shm.Create(w.arg("key"), size)
	}
	return shm.Attach(w.arg("key"))
}

func qshmLock(w *worker) error {
	s, err := shm.Create(w.arg("key"), 4096)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return w.bench(func(n int) error {
		for range n {
			if err := s.Lock(); err != nil {
				return err
			}
			if err := s.Unlock(); err != nil {
				return err
			}
		}
		return nil
	})
}

func qshmContend(w *worker) error {
	s, err := w.open(4096)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	d, err := shm.Value[[8]uint64](s, 0)
	if err != nil {
		return err
	}
	return w.contend(d, s.Lock, s.Unlock)
}

func qshmHold(w *worker) error {
	n := w.number("n", 0)
	names := []string{w.arg("key")}
	for i := range n {
		names = append(names[:i], fmt.Sprintf("%s-%d", w.arg("key"), i))
	}
	var held []*shm.Segment
	defer func() {
		for _, s := range held {
			_ = s.Close()
		}
	}()
	for _, name := range names {
		s, err := holdOne(w, name)
		if err != nil {
			return err
		}
		held = append(held, s)
	}
	return w.measure(func(int64) (figures, error) { return figures{N: int64(len(held))}, nil })
}

func holdOne(w *worker, key string) (*shm.Segment, error) {
	if w.number("create", 1) == 1 {
		return shm.Create(key, w.number("size", 4096))
	}
	return shm.Attach(key)
}

func qshmAttach(w *worker) error {
	key := w.arg("key")
	if w.number("have", 0) == 1 {
		s, err := shm.Attach(key)
		if err != nil {
			return err
		}
		defer func() { _ = s.Close() }()
	}
	return benchDetach(w, func() (*shm.Segment, error) { return shm.Attach(key) })
}

func qshmCreate(w *worker) error {
	key := w.arg("key")
	return benchDetach(w, func() (*shm.Segment, error) { return shm.Create(key, 4096) })
}

// benchDetach measures a call that makes an attachment, and its Detach.
func benchDetach(w *worker, attach func() (*shm.Segment, error)) error {
	return w.bench(func(n int) error {
		for range n {
			s, err := attach()
			if err != nil {
				return err
			}
			if err := s.Detach(); err != nil {
				return err
			}
		}
		return nil
	})
}

// qshmCrowd keeps n attachments. It makes twice as many and detaches every other one, because the kernel merges the locks
// of adjacent slots into one.
func qshmCrowd(w *worker) error {
	n := w.number("n", 1)
	all := make([]*shm.Segment, 2*n)
	for i := range all {
		var err error
		if i == 0 {
			all[i], err = shm.Create(w.arg("key"), 4096, shm.MaxAttachments(2*n))
		} else {
			all[i], err = shm.Attach(w.arg("key"))
		}
		if err != nil {
			return err
		}
		defer func() { _ = all[i].Close() }()
	}
	for i := 1; i < len(all); i += 2 {
		if err := all[i].Detach(); err != nil {
			return err
		}
	}
	return w.measure(func(int64) (figures, error) { return figures{N: int64(n)}, nil })
}

// qshmAsked measures a Create that fails because the segment has attachments.
func qshmAsked(w *worker) error {
	key := w.arg("key")
	return w.bench(func(n int) error {
		for range n {
			if _, err := shm.Create(key, 4096); !errors.Is(err, shm.ErrExist) {
				return fmt.Errorf("create a segment in use: %v", err)
			}
		}
		return nil
	})
}

// qshmQueue waits for the lock, and holds it until the end.
func qshmQueue(w *worker) error {
	s, err := w.open(4096)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	return w.measure(func(int64) (figures, error) { return figures{N: 1}, s.Lock() })
}

// qshmAwait waits for a change that does not come.
func qshmAwait(w *worker) error {
	s, err := w.open(4096)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	return w.measure(func(int64) (figures, error) {
		go func() {
			w.waitForEnd()
			cancel()
		}()
		if _, err := s.Wait(ctx, s.Version()); !errors.Is(err, context.Canceled) {
			return figures{}, fmt.Errorf("wait for a change that does not come: %v", err)
		}
		return figures{N: 1}, nil
	})
}

func qshmUpdate(w *worker) error {
	size := w.number("size", 64)
	s, err := w.open(size)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	from := make([]byte, size)
	write := func(data []byte) error {
		copy(data, from)
		return nil
	}
	return w.bench(func(n int) error {
		for i := range n {
			from[0] = byte(i)
			if err := s.Update(write); err != nil {
				return err
			}
		}
		return nil
	})
}

func qshmSnapshot(w *worker) error {
	size := w.number("size", 64)
	s, err := w.open(size)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	to := make([]byte, size)
	return w.bench(func(n int) error {
		for range n {
			if _, _, err := s.Snapshot(to); err != nil {
				return err
			}
		}
		return nil
	})
}

// channel stands at the start of the data while two processes talk to each other: for each direction a counter and
// the time of its last change, on cache lines of their own. See struct channel in src/peer_ops.h.
type channel struct {
	side [2]struct {
		word  atomic.Uint32
		_     [60]byte
		stamp atomic.Int64
		_     [56]byte
	}
}

const channelSize = 4096

// talk is one end of a channel.
type talk struct {
	s       *shm.Segment
	c       *channel
	ctx     context.Context
	version uint32
	now     func() int64
}

// openTalk opens a segment with a channel and room for size bytes after it.
func openTalk(w *worker, size int) (*talk, error) {
	s, err := w.open(channelSize + size)
	if err != nil {
		return nil, err
	}
	c, err := shm.Value[channel](s, 0)
	if err != nil {
		return nil, errors.Join(err, s.Close())
	}
	return &talk{s: s, c: c, ctx: context.Background(), now: w.now}, nil
}

func (t *talk) close() { _ = t.s.Close() }

// publish makes a change; Unlock wakes the process that waits for one.
func (t *talk) publish(side int, v uint32) error {
	if err := t.s.Lock(); err != nil {
		return err
	}
	t.c.side[side].word.Store(v)
	return t.s.Unlock()
}

// await returns when the side's word is at least v. The version is read before the word: a change after that makes
// Wait return at once.
func (t *talk) await(side int, v uint32) error {
	for {
		t.version = t.s.Version()
		if int32(t.c.side[side].word.Load()-v) >= 0 {
			return nil
		}
		if _, err := t.s.Wait(t.ctx, t.version); err != nil {
			return err
		}
	}
}

func qshmPing(w *worker) error {
	t, err := openTalk(w, 0)
	if err != nil {
		return err
	}
	defer t.close()
	mine := 1 - w.number("create", 0)
	return w.measure(func(int64) (figures, error) {
		var h hist
		n := w.number("n", 1000)
		before := mallocs()
		for i := 1; i <= n; i++ {
			for side := range 2 {
				if side == mine {
					t.c.side[side].stamp.Store(t.now())
					if err := t.publish(side, uint32(i)); err != nil {
						return figures{}, err
					}
					continue
				}
				if err := t.await(side, uint32(i)); err != nil {
					return figures{}, err
				}
				h.add(t.now() - t.c.side[side].stamp.Load())
			}
		}
		allocs := float64(mallocs()-before) / float64(n)
		return figures{N: int64(n), Max: h.max, Hist: &h, Alloc: allocs}, nil
	})
}

func qshmMove(w *worker) error {
	size, slots, n, warm := w.number("size", 64), w.number("slots", 2), w.number("n", 100), w.number("warm", 2)
	send, out := w.number("create", 0) == 1, w.number("copy", 0) == 1
	t, err := openTalk(w, size*slots)
	if err != nil {
		return err
	}
	defer t.close()
	data, buf := t.s.Data()[channelSize:], make([]byte, size)
	for i := range buf {
		buf[i] = 1
	}
	return w.measure(func(int64) (figures, error) {
		begin, pace := w.now(), newPace(n, slots)
		for i := 1; i <= n+warm; i++ {
			slot := data[size*(i%slots):][:size]
			if i == warm+1 {
				begin = w.now()
				pace.start()
			}
			if send {
				if i > slots {
					if err := t.await(1, uint32(i-slots)); err != nil {
						return figures{}, err
					}
				}
				// Until publish, only the sender uses the slot: filling it needs no lock.
				mark(buf, int64(i))
				copy(slot, buf)
				if err := t.publish(0, uint32(i)); err != nil {
					return figures{}, err
				}
				continue
			}
			if err := t.await(0, uint32(i)); err != nil {
				return figures{}, err
			}
			if out {
				copy(buf, slot)
				slot = buf
			}
			if !marked(slot, int64(i)) {
				return figures{}, fmt.Errorf("payload %d arrived damaged", i)
			}
			if err := t.publish(1, uint32(i)); err != nil {
				return figures{}, err
			}
			if i > warm {
				pace.step()
			}
		}
		return figures{N: int64(n), Begin: begin, End: w.now(), Op: pace.each()}, nil
	})
}

// mark numbers a payload at both ends.
func mark(b []byte, i int64) {
	*(*int64)(unsafe.Pointer(&b[0])) = i
	*(*int64)(unsafe.Pointer(&b[len(b)-8])) = i
}

func marked(b []byte, i int64) bool {
	return *(*int64)(unsafe.Pointer(&b[0])) == i && *(*int64)(unsafe.Pointer(&b[len(b)-8])) == i
}

func mallocs() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.Mallocs
}

// qshmAllocs counts the heap allocations of calls that must not allocate.
func qshmAllocs(w *worker) error {
	s, err := shm.Create(w.arg("key"), 4096)
	if err != nil {
		return err
	}
	defer func() { _ = s.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	b := make([]byte, 64)
	op := map[string]func() error{
		"lock": func() error {
			if err := s.Lock(); err != nil {
				return err
			}
			return s.Unlock()
		},
		"snapshot": func() error { _, _, err := s.Snapshot(b); return err },
		"wait":     func() error { _, err := s.Wait(ctx, s.Version()); return err },
		"read":     func() error { _, err := s.ReadAt(b, 0); return err },
		"write":    func() error { _, err := s.WriteAt(b, 0); return err },
	}[w.arg("what")]
	return w.measure(func(int64) (figures, error) {
		n := 10000
		var f figures
		if w.arg("what") == "wait" {
			n = 1000 // each takes as long as a change
			// Another goroutine makes the changes, so slowly that Wait sleeps.
			go func() {
				for ctx.Err() == nil {
					_ = s.Lock()
					_ = s.Unlock()
					for range 5000 {
						spun.Add(1)
					}
				}
			}()
		}
		before := mallocs()
		for range n {
			if err := op(); err != nil {
				return f, err
			}
		}
		// The runtime allocates now and then too: less often than once in ten operations.
		f.Alloc = float64((mallocs() - before) / uint64(n/10) / 10)
		return f, nil
	})
}
