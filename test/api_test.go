package test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qshm/shm"
)

// Init, UpdateWhen, Load, Store and Grow, between processes.

func init() {
	// openinit is Open with an Init that takes its time, when the gate opens. It
	// reports an error if the memory that it gets is not initialised.
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
				return fmt.Errorf("byte %d is %#x before it is initialised", i, b)
			}
		}
		return nil
	}
	// createinit is Create with an Init that never ends, or dies in it.
	extra["createinit"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		_, err := shm.Create(string(r.Key), r.N, shm.Init(func(data []byte) error {
			data[0] = 1
			if string(r.Data) == "die" {
				self, err := os.FindProcess(os.Getpid())
				return errors.Join(err, self.Kill(), errors.New("still alive"))
			}
			select {}
		}))
		return err
	}
	extra["addjob"] = func(c *child, _ context.Context, r request, _ *answer) error {
		return c.segment(r.Handle).Update(func(data []byte) error { *word(data)++; return nil })
	}
	// work takes jobs, the number at offset 0, until there is a negative one, and
	// counts those done at offset 8.
	extra["work"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		for over := false; !over; {
			err := s.UpdateWhen(ctx,
				func(data []byte) bool { return *word(data) != 0 },
				func(data []byte) error {
					if over = int64(*word(data)) < 0; !over {
						*word(data)--
						*word(data[8:])++
						a.N++
					}
					return nil
				})
			if err != nil {
				return err
			}
		}
		return nil
	}
	// dieinupdatewhen dies in the function of an UpdateWhen.
	extra["dieinupdatewhen"] = func(c *child, ctx context.Context, r request, a *answer) error {
		return c.segment(r.Handle).UpdateWhen(ctx,
			func(data []byte) bool { return data[0] == 1 },
			func(data []byte) error {
				data[0] = 2
				self, err := os.FindProcess(os.Getpid())
				return errors.Join(err, self.Kill())
			})
	}
	extra["isabandoned"] = func(c *child, ctx context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		return s.UpdateWhen(ctx,
			func(data []byte) bool { return data[0] == 2 },
			func(data []byte) error {
				a.OK = s.Abandoned()
				return nil
			})
	}
}

func TestNoProcessSeesUninitialisedMemory(t *testing.T) {
	st := newStore(t)
	procs := st.startN(8)
	for round := range 5 {
		var opening []*pending
		for _, p := range procs {
			opening = append(opening, p.begin(request{Op: "openinit", Key: key("k"), N: 1000}))
		}
		for _, p := range procs {
			if round == 0 {
				p.do(request{Op: "go"})
			}
		}
		created := 0
		for _, o := range opening {
			if o.must().OK {
				created++
			}
		}
		if created != 1 {
			t.Errorf("%d processes have created the segment", created)
		}
		for _, p := range procs {
			p.do(request{Op: "closeall"})
		}
		st.wantFiles()
		procs = st.startN(8)
		for _, p := range procs {
			p.do(request{Op: "go"})
		}
	}
}

func TestInitThatFailsUndoesTheCreation(t *testing.T) {
	st := newStore(t)
	mine := errors.New("mine")
	_, err := shm.Create("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { return mine }))
	if !errors.Is(err, mine) {
		t.Errorf("create: %v", err)
	}
	st.wantFiles()
	func() {
		defer func() {
			if recover() != mine {
				t.Error("the panic of Init is lost")
			}
		}()
		shm.Open("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { panic(mine) }))
	}()
	st.wantFiles()
	s, err := shm.Create("k", 100, shm.Dir(st.dir), shm.ReadOnly(), shm.Init(func(data []byte) error { data[0] = 7; return nil }))
	must(t, err)
	if got, err := shm.Load[byte](s, 0); got != 7 || err != nil {
		t.Errorf("after Init of a read-only attachment: %d, %v", got, err)
	}
	called := false
	again, created, err := shm.Open("k", 100, shm.Dir(st.dir), shm.Init(func([]byte) error { called = true; return nil }))
	must(t, err)
	if called || created {
		t.Error("Init was called for a segment that exists")
	}
	must(t, errors.Join(s.Detach(), again.Detach()))
}

func TestProcessThatDiesInInitLeavesNothing(t *testing.T) {
	st := newStore(t)
	creator, next := st.start(), st.start()
	if _, err := creator.try(request{Op: "createinit", Key: key("k"), N: 100, Data: []byte("die")}); !errors.Is(err, errEnded) {
		t.Fatalf("create: %v", err)
	}
	creator.awaitEnd() // its locks are released one after another
	if _, err := next.tryAttach("k"); !errors.Is(err, shm.ErrNotExist) {
		t.Errorf("attach: %v", err)
	}
	st.wantFiles()
}

// Each Create sweeps a little, but leaves what the next process with the same key has
// to learn.
func TestCreateOfAnotherKeyLeavesAbandonedLocks(t *testing.T) {
	st := newStore(t)
	dying := st.start()
	dying.create("calm", 8)
	abandoned := dying.create("abandoned", 8)
	abandoned.lock()
	dying.kill()
	other := st.start()
	s := other.create("other", 8) // the first of a process sweeps
	st.wantFiles("abandoned", "other")
	next := st.start().create("abandoned", 8)
	a := next.do(request{Op: "replaced"})
	if !a.OK || !a.Infos[0].Abandoned {
		t.Errorf("replaced: %v, %+v; want an abandoned lock", a.OK, a.Infos)
	}
	next.detach()
	s.detach()
	st.wantFiles()
}

func TestWaitingForInitIsBounded(t *testing.T) {
	st := newStore(t)
	creator, other := st.start(), st.start()
	creator.begin(request{Op: "createinit", Key: key("k"), N: 100})
	for {
		if _, err := os.Stat(st.path("k")); err == nil {
			break
		}
		time.Sleep(time.Millisecond)
	}
	for {
		_, err := other.tryAttach("k", opts{Timeout: 200 * time.Millisecond})
		if errors.Is(err, context.DeadlineExceeded) {
			break
		}
		if !errors.Is(err, shm.ErrNotExist) { // the creator has not locked its file yet
			t.Fatalf("attach: %v", err)
		}
	}
	opening := other.begin(request{Op: "open", Key: key("k"), N: 50})
	creator.kill()
	if !opening.must().OK {
		t.Error("the segment of the dead process was not made anew")
	}
}

// Each job is done once, whatever the number of workers, and no wake is lost.
func TestUpdateWhenHandsOutEachJobOnce(t *testing.T) {
	const jobs = 300
	st := newStore(t)
	master := st.start()
	queue := master.create("k", 64)
	var working []*pending
	for _, p := range st.startN(3) {
		s := p.attach("k")
		for range 3 { // goroutines that share an attachment, and a thread
			working = append(working, s.begin(request{Op: "work"}))
		}
	}
	for range jobs {
		queue.do(request{Op: "addjob"})
	}
	for strings.Trim(queue.peek(0, 8), "\x00") != "" {
		time.Sleep(time.Millisecond)
	}
	queue.write(0, strings.Repeat("\xff", 8)) // -1: it is over
	done := 0
	for _, w := range working {
		done += w.must().N
	}
	if done != jobs {
		t.Errorf("%d jobs were done, want %d", done, jobs)
	}
}

func TestUpdateWhenOutlivesADeadWorker(t *testing.T) {
	st := newStore(t)
	master, victim, heir := st.start(), st.start(), st.start()
	s := master.create("k", 64)
	dying := victim.attach("k").begin(request{Op: "dieinupdatewhen"})
	waiting := heir.attach("k").begin(request{Op: "isabandoned"})
	s.write(0, "\x01")
	if _, err := dying.outcome(); !errors.Is(err, errEnded) {
		t.Fatalf("the victim: %v", err)
	}
	if !waiting.must().OK {
		t.Error("Abandoned is false for the next worker")
	}
}

func TestUpdateWhenEndsWithItsContext(t *testing.T) {
	st := newStore(t)
	s, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	defer s.Close()
	never := func([]byte) bool { return false }
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.UpdateWhen(ctx, never, nil) }()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("after the end of the context: %v", err)
	}
	go func() { ended <- s.UpdateWhen(context.Background(), never, nil) }()
	for runtime.Gosched(); s.Attached(); {
		must(t, s.Detach())
	}
	if err := <-ended; !errors.Is(err, shm.ErrDetached) {
		t.Errorf("after Detach: %v", err)
	}
}

// Load, Store, Value, Slice and Grow through several attachments of several processes
// agree with a model.
func TestTypedAccessAndGrowingAgreeWithAModel(t *testing.T) {
	st := newStore(t)
	other := st.start()
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(1, 5000).Draw(t, "size")
		writer, err := shm.Create("k", size, shm.Dir(st.dir))
		if err != nil {
			t.Fatal(err)
		}
		defer writer.Close()
		reader, err := shm.Attach("k", shm.Dir(st.dir), shm.ReadOnly())
		if err != nil {
			t.Fatal(err)
		}
		defer reader.Close()
		theirs, err := other.tryAttach("k")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { theirs.try(request{Op: "detach"}) }()
		model := make([]byte, size)
		var kept [][]byte // slices from before the segment has grown
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				off, v := rapid.IntRange(-1, len(model)).Draw(t, "off"), rapid.Uint32().Draw(t, "v")
				fits := off >= 0 && off <= len(model)-4
				if err := shm.Store(writer, off, v); (err == nil) != fits || err != nil && !errors.Is(err, shm.ErrSize) {
					t.Fatalf("store at %d of %d: %v", off, len(model), err)
				}
				if fits {
					copy(model[off:], asBytes(v))
				}
			},
			"load": func(t *rapid.T) {
				off := rapid.IntRange(-1, len(model)).Draw(t, "off")
				fits := off >= 0 && off <= len(model)-8
				for _, s := range []*shm.Segment{writer, reader} {
					v, err := shm.Load[[8]byte](s, off)
					if (err == nil) != fits || fits && string(v[:]) != string(model[off:off+8]) {
						t.Fatalf("load at %d of %d: %x, %v", off, len(model), v, err)
					}
				}
			},
			"grow": func(t *rapid.T) {
				size := rapid.IntRange(1, 3*len(model)).Draw(t, "size")
				kept = append(kept, writer.Data(), reader.Data())
				var err error
				if rapid.Bool().Draw(t, "other") {
					_, err = theirs.try(request{Op: "grow", N: size})
				} else {
					err = writer.Grow(size)
				}
				if err != nil {
					t.Fatal(err)
				}
				if size > len(model) {
					model = append(model, make([]byte, size-len(model))...)
				}
				if err := reader.Grow(size); !errors.Is(err, shm.ErrReadOnly) {
					t.Fatalf("a read-only attachment: %v", err)
				}
			},
			"slice": func(t *rapid.T) {
				n := rapid.IntRange(0, len(model)/4+1).Draw(t, "n")
				values, err := shm.Slice[int32](reader, 0, n)
				if fits := n > 0 && 4*n <= len(model); (err == nil) != fits {
					t.Fatalf("slice of %d in %d: %v", n, len(model), err)
				}
				if err == nil && string(asBytes(uint32(values[n-1]))) != string(model[4*n-4:4*n]) {
					t.Fatalf("value %d is %x", n-1, values[n-1])
				}
			},
			"other": func(t *rapid.T) {
				off := rapid.IntRange(0, len(model)-1).Draw(t, "off")
				a, err := theirs.try(request{Op: "readat", Off: int64(off), N: len(model)})
				if !errors.Is(err, io.EOF) && off > 0 || string(a.Data) != string(model[off:]) {
					t.Fatalf("another process reads %d bytes, want %d: %v", len(a.Data), len(model)-off, err)
				}
			},
			"": func(t *rapid.T) {
				if writer.Size() != len(model) || reader.Size() != len(model) || string(reader.Data()) != string(model) {
					t.Fatalf("sizes %d and %d, want %d", writer.Size(), reader.Size(), len(model))
				}
				for _, old := range kept {
					if string(old) != string(model[:len(old)]) {
						t.Fatal("a slice from before is not the same memory")
					}
				}
			},
		})
	})
}

func TestGrowOfARemovedSegment(t *testing.T) {
	st := newStore(t)
	p := st.start()
	s := p.create("k", 64)
	p.remove("k")
	_, err := s.try(request{Op: "grow", N: 100})
	wantError(t, err, shm.ErrNotExist)
	if s.size() != 64 {
		t.Errorf("size %d, want 64", s.size())
	}
	s.detach()
}

func TestCallsThatDoNotAllocate(t *testing.T) {
	st := newStore(t)
	s, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	defer s.Close()
	ctx, buf := context.Background(), make([]byte, 64)
	nothing := func([]byte) error { return nil }
	always := func([]byte) bool { return true }
	for name, call := range map[string]func() error{
		"Lock":       func() error { return errors.Join(s.Lock(), s.Unlock()) },
		"View":       func() error { return s.View(nothing) },
		"Update":     func() error { return s.Update(nothing) },
		"UpdateWhen": func() error { return s.UpdateWhen(ctx, always, nothing) },
		"Load":       func() error { _, err := shm.Load[[3]uint64](s, 5); return err },
		"Store":      func() error { return shm.Store(s, 5, [3]uint64{1, 2, 3}) },
		"Snapshot":   func() error { _, _, err := s.Snapshot(buf); return err },
		"ReadAt":     func() error { _, err := s.ReadAt(buf, 0); return err },
		"WriteAt":    func() error { _, err := s.WriteAt(buf, 0); return err },
		"Data":       func() error { _ = s.Data(); return nil },
		"Value":      func() error { _, err := shm.Value[uint32](s, 8); return err },
	} {
		if n := testing.AllocsPerRun(100, func() { must(t, call()) }); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}

func asBytes(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
