package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"qshm/shm"
)

// Init: no process sees memory that is not initialised, and a creator that fails or dies
// in it leaves nothing.

func init() {
	// openinit is Open, when the gate opens, with an Init that takes some milliseconds. It
	// reports an error if the memory is not initialised when Open has returned.
	extra["openinit"] = func(c *child, _ context.Context, r request, a *answer) error {
		<-c.gate
		s, created, err := shm.Open(string(r.Key), r.N, shm.Init(func(data []byte) error {
			for i := range data {
				data[i] = 0xaa
				if i%64 == 0 {
					time.Sleep(time.Millisecond)
				}
			}
			return nil
		}))
		if err != nil {
			return err
		}
		c.keep(s, a)
		a.OK = created
		for i, b := range s.Data() {
			if b != 0xaa {
				return fmt.Errorf("byte %d is %#x after Open, want 0xaa, which Init writes", i, b)
			}
		}
		return nil
	}
	// createinit is Create with an Init that never returns. If Data is "die", the process
	// dies in it.
	extra["createinit"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		_, err := shm.Create(string(r.Key), r.N, shm.Init(func(data []byte) error {
			data[0] = 1
			if string(r.Data) == "die" {
				die()
			}
			select {}
		}))
		return err
	}
}

func TestNoProcessSeesUninitialisedMemory(t *testing.T) {
	st := newStore(t)
	for range 5 {
		procs := st.startN(8)
		opening := beginAtOnce(procs, func(int) request { return request{Op: "openinit", Key: key("k"), N: 1000} })
		created := 0
		for _, o := range opening {
			if o.must().OK {
				created++
			}
		}
		if created != 1 {
			t.Errorf("%d calls of Open created the segment, want 1", created)
		}
		for _, p := range procs {
			p.do(request{Op: "closeall"})
		}
		st.wantFiles()
	}
}

func TestInitThatFailsUndoesTheCreation(t *testing.T) {
	st := newStore(t)
	failed := errors.New("Init has failed")
	_, err := shm.Create("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { return failed }))
	wantError(t, err, failed)
	st.wantFiles()
	func() {
		defer func() {
			if recover() != failed {
				t.Error("Open has not passed on the panic of Init")
			}
		}()
		shm.Open("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { panic(failed) }))
	}()
	st.wantFiles()
	s, err := shm.Create("k", 100, shm.Dir(st.dir), shm.ReadOnly(), shm.Init(func(data []byte) error { data[0] = 7; return nil }))
	must(t, err)
	if got, err := shm.Load[byte](s, 0); got != 7 || err != nil {
		t.Errorf("a read-only creator loads %d, %v, want 7, which Init wrote", got, err)
	}
	called := false
	again, created, err := shm.Open("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { called = true; return nil }))
	must(t, err)
	if called || created {
		t.Errorf("Open of a segment that exists: Init called %v, created %v, want false", called, created)
	}
	must(t, errors.Join(s.Detach(), again.Detach()))
}

func TestProcessThatDiesInInitLeavesNothing(t *testing.T) {
	st := newStore(t)
	creator, next := st.start(), st.start()
	if _, err := creator.try(request{Op: "createinit", Key: key("k"), N: 100, Data: []byte("die")}); !errors.Is(err, errEnded) {
		t.Fatalf("Create with an Init that kills its process: %v, want the end of the process", err)
	}
	creator.awaitEnd() // its locks are released one after another
	_, err := next.tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
	st.wantFiles()
}

// Attach and Open wait while the creator runs Init.
func TestWaitForInitEndsWithTheContextOrTheCreator(t *testing.T) {
	st := newStore(t)
	creator, other := st.start(), st.start()
	creator.begin(request{Op: "createinit", Key: key("k"), N: 100})
	eventually(t, "creating the file", func() bool { _, err := os.Stat(st.path("k")); return err == nil })
	for {
		_, err := other.tryAttach("k", opts{Timeout: 200 * time.Millisecond})
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if !errors.Is(err, shm.ErrNotExist) { // the creator has not locked its file yet
			t.Fatalf("Attach while the creator runs Init: %v, want %v", err, context.DeadlineExceeded)
		}
	}
	opening := other.begin(request{Op: "open", Key: key("k"), N: 50})
	creator.kill()
	if !opening.must().OK {
		t.Error("Open has not created a segment after the creator died in Init")
	}
}
