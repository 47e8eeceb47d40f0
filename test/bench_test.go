package test

import (
	"context"
	"fmt"
	"testing"

	"qshm/shm"
	"qshm/shm/single"
)

// Benchmarks for daily use: go test -run '^$' -bench . ./test. compare.sh shows the effect
// of a change; peers compares with other libraries.

func init() {
	// echo answers each change after version N by a change of its own, until the gate opens.
	extra["echo"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for v := uint32(r.N); ; v++ {
			if _, err := s.Wait(ctx, v); err != nil {
				return err
			}
			select {
			case <-c.gate:
				return nil
			default:
			}
			if err := s.Update(func(data []byte) error { data[0]++; return nil }); err != nil {
				return err
			}
			v++
		}
	}
	// createmany creates N segments and stays attached to them.
	extra["createmany"] = func(c *child, _ context.Context, r request, a *answer) error {
		for i := range r.N {
			s, err := shm.Create(fmt.Sprint("one of many ", i), 64, shm.Sparse())
			if err != nil {
				return err
			}
			c.keep(s, a)
		}
		return nil
	}
}

func benchSegment(b *testing.B, size int) (*shm.Segment, shm.Option) {
	store := shm.Dir(sharedTemp(b))
	seg, err := shm.Create("k", size, store)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { seg.Close() })
	return seg, store
}

func BenchmarkLockUnlock(b *testing.B) {
	seg, _ := benchSegment(b, 64)
	b.ReportAllocs()
	for b.Loop() {
		seg.Lock()
		seg.Unlock()
	}
}

func BenchmarkTwoContend(b *testing.B) {
	seg, store := benchSegment(b, 64)
	other, err := shm.Attach("k", store)
	if err != nil {
		b.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				other.Lock()
				other.Unlock()
			}
		}
	}()
	for b.Loop() {
		seg.Lock()
		seg.Unlock()
	}
	close(stop)
	<-stopped
	other.Close()
}

func BenchmarkUpdate(b *testing.B) {
	seg, _ := benchSegment(b, 64)
	b.ReportAllocs()
	for b.Loop() {
		seg.Update(func(data []byte) error { data[0]++; return nil })
	}
}

// BenchmarkAttachDetachAgain attaches in a process that is attached already.
func BenchmarkAttachDetachAgain(b *testing.B) {
	_, store := benchSegment(b, 4096)
	benchAttachDetach(b, store)
}

func BenchmarkSnapshot(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg, _ := benchSegment(b, size)
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				seg.Snapshot(buf)
			}
		})
	}
}

func BenchmarkWriteAt(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg, _ := benchSegment(b, size)
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				seg.WriteAt(buf, 0)
			}
		})
	}
}

func BenchmarkSingleSend(b *testing.B) {
	store := shm.Dir(sharedTemp(b))
	app, err := single.Acquire("bench", store)
	if err != nil {
		b.Fatal(err)
	}
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		for range app.Messages(context.Background()) {
		}
	}()
	message := make([]byte, 100)
	for b.Loop() {
		if err := single.Send(context.Background(), "bench", message, store); err != nil {
			b.Fatal(err)
		}
	}
	app.Close()
	<-taken
}

func BenchmarkAttachDetach(b *testing.B) {
	for _, n := range []int{1, 200} {
		b.Run(fmt.Sprintf("attached=%d", n), func(b *testing.B) {
			st := newStore(b)
			st.start().create("k", 64, opts{Max: 256})
			attachMany(st, "k", n-1)
			benchAttachDetach(b, shm.Dir(st.dir))
		})
	}
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			st := newStore(b)
			st.start().create("k", 64)
			createMany(st, n-1)
			benchAttachDetach(b, shm.Dir(st.dir))
		})
	}
}

func benchAttachDetach(b *testing.B, store shm.Option) {
	b.ReportAllocs()
	for b.Loop() {
		s, err := shm.Attach("k", store)
		if err != nil {
			b.Fatal(err)
		}
		s.Detach()
	}
}

func BenchmarkCreateDestroy(b *testing.B) {
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			st := newStore(b)
			createMany(st, n-1)
			for b.Loop() {
				s, err := shm.Create("k", 64, shm.Dir(st.dir))
				if err != nil {
					b.Fatal(err)
				}
				s.Detach()
			}
		})
	}
}

// BenchmarkPingPong measures a change that another process answers by another change.
func BenchmarkPingPong(b *testing.B) {
	st := newStore(b)
	other := st.start().create("k", 64)
	s, err := shm.Attach("k", shm.Dir(st.dir))
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	echo := other.begin(request{Op: "echo", N: int(s.Version())})
	for b.Loop() {
		v := s.Version()
		if err := s.Update(func(data []byte) error { data[0]++; return nil }); err != nil {
			b.Fatal(err)
		}
		for now := v + 1; now != v+2; {
			if now, err = s.Wait(b.Context(), now); err != nil {
				b.Fatal(err)
			}
		}
	}
	other.do(request{Op: "go"})
	s.Update(func([]byte) error { return nil })
	echo.must()
}

// attachMany makes n attachments to the segment of a key, in two processes.
func attachMany(st *store, k string, n int) {
	for i, p := range st.startN(2) {
		for range (n + i) / 2 {
			p.attach(k)
		}
	}
}

// createMany creates n segments under other keys.
func createMany(st *store, n int) { st.start().do(request{Op: "createmany", N: n}) }
