package test

import (
	"fmt"
	"testing"

	"qshm/shm"
)

// The cost of a call does not depend on the number of other attachments and segments.
// Here are benchmarks; cost_linux_test.go counts system calls.

// crowd makes n more attachments to the segment of a key, in two processes.
func crowd(st *store, k string, n int) {
	for i, p := range st.startN(2) {
		for range (n + i) / 2 {
			p.attach(k)
		}
	}
}

// litter creates n other segments.
func litter(st *store, n int) *proc {
	p := st.start()
	p.do(request{Op: "litter", N: n})
	return p
}

func BenchmarkAttachDetach(b *testing.B) {
	for _, n := range []int{1, 200} {
		b.Run(fmt.Sprintf("attached=%d", n), func(b *testing.B) {
			st := newStore(b)
			st.start().create("k", 64, opts{Max: 256})
			crowd(st, "k", n-1)
			benchmarkLifetimes(b, st)
		})
	}
	for _, n := range []int{1, 10000} {
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			st := newStore(b)
			st.start().create("k", 64)
			litter(st, n-1)
			benchmarkLifetimes(b, st)
		})
	}
}

func benchmarkLifetimes(b *testing.B, st *store) {
	for b.Loop() {
		s, err := shm.Attach("k", shm.Dir(st.dir))
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
			litter(st, n-1)
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
