package test

import (
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qshm/keymap"
	"qshm/shm"
)

// Random sequences of calls, compared with a model of what they do.

// segment is the model of a segment.
type segment struct {
	mark      byte // its first byte
	size      int
	attached  []*holder
	owner     *holder
	abandoned bool // the last writer died while it held the lock
	removed   bool
}

// holder is the model of an attachment.
type holder struct {
	*attachment
	of       *segment
	proc     int
	readOnly bool
}

func (h *holder) leave() {
	h.of.attached = slices.DeleteFunc(h.of.attached, func(o *holder) bool { return o == h })
}

type world struct {
	st    *store
	procs []*proc
	keys  map[string]*segment // live, or dead and perhaps not destroyed yet
	held  []*holder
	marks byte
}

// dead reports whether the segment is garbage, which any call may destroy.
func (s *segment) dead() bool { return len(s.attached) == 0 }

func (w *world) live(k string) *segment {
	if s := w.keys[k]; s != nil && !s.dead() {
		return s
	}
	return nil
}

func (w *world) drawKey(t *rapid.T) string {
	return rapid.SampledFrom([]string{"a", "b"}).Draw(t, "key")
}

func (w *world) drawProc(t *rapid.T) int { return rapid.IntRange(0, len(w.procs)-1).Draw(t, "process") }

func (w *world) drawHolder(t *rapid.T) *holder {
	if len(w.held) == 0 {
		t.Skip("no process is attached")
	}
	return w.held[rapid.IntRange(0, len(w.held)-1).Draw(t, "attachment")]
}

// attached adds an attachment to the model, and checks that it is to the right segment.
func (w *world) attached(t *rapid.T, s *attachment, of *segment, proc int, readOnly bool) {
	h := &holder{s, of, proc, readOnly}
	of.attached = append(of.attached, h)
	w.held = append(w.held, h)
	if n := s.size(); n != of.size {
		t.Fatalf("size %d, want %d", n, of.size)
	}
	if got := s.peek(0, 1)[0]; got != of.mark {
		t.Fatalf("the memory contains %d, want %d: this is another segment", got, of.mark)
	}
}

// mark draws whether Init writes the mark of the next segment.
func (w *world) mark(t *rapid.T) opts {
	if w.marks++; rapid.Bool().Draw(t, "Init") {
		return opts{Init: string([]byte{w.marks})}
	}
	return opts{}
}

// created adds a segment to the model, and writes its mark if Init has not.
func (w *world) created(t *rapid.T, s *attachment, k string, size, proc int, o opts) {
	of := &segment{size: size}
	if o.Init != "" {
		of.mark = w.marks
	}
	w.attached(t, s, of, proc, false)
	if end := s.peek(int64(min(size, 2)-1), 1)[0]; size > 1 && end != 0 {
		t.Fatalf("the last byte of new memory is %d, want 0", end)
	}
	if of.mark == 0 {
		of.mark = w.marks
		s.poke(0, string([]byte{of.mark}))
	}
	a := s.do(request{Op: "replaced"})
	switch was := w.keys[k]; {
	case a.OK && was == nil:
		t.Fatalf("Replaced: %+v, want none", a.Infos[0])
	case a.OK && (a.Infos[0].Abandoned != was.abandoned || a.Infos[0].Size != int64(was.size)):
		t.Fatalf("replaced %+v, want abandoned %v, size %d", a.Infos[0], was.abandoned, was.size)
	}
	w.keys[k] = of
}

func (w *world) want(t *rapid.T, op string, err, kind error) {
	if !errors.Is(err, kind) || (kind == nil) != (err == nil) {
		t.Fatalf("%s: %v, want %v", op, err, kind)
	}
}

func (w *world) create(t *rapid.T) {
	k, p, size := w.drawKey(t), w.drawProc(t), rapid.IntRange(1, 9000).Draw(t, "size")
	o := w.mark(t)
	s, err := w.procs[p].tryCreate(k, size, o)
	if w.live(k) != nil {
		w.want(t, "create", err, shm.ErrExist)
		return
	}
	w.want(t, "create", err, nil)
	w.created(t, s, k, size, p, o)
}

func (w *world) attach(t *rapid.T) {
	k, p, readOnly := w.drawKey(t), w.drawProc(t), rapid.Bool().Draw(t, "read-only")
	s, err := w.procs[p].tryAttach(k, opts{ReadOnly: readOnly})
	if of := w.live(k); of != nil {
		w.want(t, "attach", err, nil)
		w.attached(t, s, of, p, readOnly)
		return
	}
	w.want(t, "attach", err, shm.ErrNotExist)
	delete(w.keys, k)
}

func (w *world) open(t *rapid.T) {
	k, p, size := w.drawKey(t), w.drawProc(t), rapid.IntRange(1, 9000).Draw(t, "size")
	o := w.mark(t)
	s, created, err := w.procs[p].tryOpen(k, size, o)
	w.want(t, "open", err, nil)
	of := w.live(k)
	if created != (of == nil) {
		t.Fatalf("open: created is %v, want %v", created, of == nil)
	}
	if created {
		w.created(t, s, k, size, p, o)
	} else {
		w.attached(t, s, of, p, false)
	}
}

func (w *world) grow(t *rapid.T) {
	h, size := w.drawHolder(t), rapid.IntRange(1, 20000).Draw(t, "size")
	_, err := h.try(request{Op: "grow", N: size})
	switch {
	case h.readOnly:
		w.want(t, "grow", err, shm.ErrReadOnly)
		return
	case size > h.of.size && h.of.removed:
		w.want(t, "grow", err, shm.ErrNotExist)
	default:
		w.want(t, "grow", err, nil)
		h.of.size = max(h.of.size, size)
	}
	for _, o := range h.of.attached {
		if n := o.size(); n != h.of.size {
			t.Fatalf("size %d, want %d", n, h.of.size)
		}
		if got := o.peek(0, 1)[0]; got != h.of.mark {
			t.Fatalf("the memory contains %d, want %d", got, h.of.mark)
		}
		if end := o.peek(int64(h.of.size-1), 1)[0]; h.of.size > 1 && end != 0 {
			t.Fatalf("the last byte is %d, want 0", end)
		}
	}
}

func (w *world) detach(t *rapid.T) {
	h := w.drawHolder(t)
	_, err := h.try(request{Op: "detach"})
	w.want(t, "detach", err, nil)
	w.held = slices.DeleteFunc(w.held, func(o *holder) bool { return o == h })
	h.leave()
	if h.of.owner == h {
		w.unlocked(h)
	}
	if h.of.dead() && !h.of.removed {
		for k, s := range w.keys {
			if s == h.of {
				delete(w.keys, k)
				if slices.Contains(w.st.files(), keymap.Name(k)) {
					t.Fatalf("the file exists after the last Detach")
				}
			}
		}
	}
}

// end applies the death of a process to the model, and starts another process.
func (w *world) end(p int) {
	for _, h := range w.held {
		if h.proc != p {
			continue
		}
		h.leave()
		if h.of.owner == h {
			h.of.owner = nil
			h.of.abandoned = true
		}
	}
	w.held = slices.DeleteFunc(w.held, func(h *holder) bool { return h.proc == p })
	w.procs[p] = w.st.start()
}

func (w *world) kill(t *rapid.T) {
	p := w.drawProc(t)
	w.procs[p].kill()
	w.end(p)
}

func (w *world) exit(t *rapid.T) {
	p := w.drawProc(t)
	w.procs[p].exit()
	w.end(p)
}

func (w *world) remove(t *rapid.T) {
	k, p := w.drawKey(t), w.drawProc(t)
	err := w.procs[p].tryRemove(k)
	switch of := w.keys[k]; {
	case of == nil:
		w.want(t, "remove", err, shm.ErrNotExist)
	case of.dead():
		if err != nil { // another call may have destroyed it
			w.want(t, "remove", err, shm.ErrNotExist)
		}
	default:
		w.want(t, "remove", err, nil)
		of.removed = true
	}
	delete(w.keys, k)
}

func (w *world) sweep(t *rapid.T) {
	a, err := w.procs[w.drawProc(t)].try(request{Op: "sweep"})
	w.want(t, "sweep", err, nil)
	for _, info := range a.Infos {
		if of := w.keys[info.Key]; of == nil || !of.dead() {
			t.Fatalf("Sweep reports %+v, which was not dead", info)
		}
	}
	for k, of := range w.keys {
		if of.dead() {
			delete(w.keys, k)
		}
	}
	for _, name := range w.st.files() {
		if keymap.IsName(name) && !w.names(name) {
			t.Fatalf("Sweep has not removed %s", name)
		}
	}
}

func (w *world) names(name string) bool {
	for k := range w.keys {
		if keymap.Name(k) == name {
			return true
		}
	}
	return false
}

func (w *world) trylock(t *rapid.T) {
	h := w.drawHolder(t)
	a, err := h.try(request{Op: "trylock"})
	w.want(t, "trylock", err, nil)
	if a.OK != (h.of.owner == nil) {
		t.Fatalf("TryLock: %v, but the owner is %v", a.OK, h.of.owner)
	}
	if a.OK {
		h.of.owner = h
	}
	if got, want := h.abandoned(), h.of.owner == h && h.of.abandoned; got != want {
		t.Fatalf("abandoned: %v, want %v", got, want)
	}
}

func (w *world) unlock(t *rapid.T) {
	h := w.drawHolder(t)
	_, err := h.try(request{Op: "unlock"})
	if h.of.owner != h {
		w.want(t, "unlock", err, shm.ErrNotLocked)
		return
	}
	w.want(t, "unlock", err, nil)
	w.unlocked(h)
}

func (w *world) unlocked(h *holder) {
	h.of.owner = nil
	if !h.readOnly {
		h.of.abandoned = false
	}
}

// check compares what Stat and Info report with the model, after each step.
func (w *world) check(t *rapid.T) {
	for _, k := range []string{"a", "b"} {
		info, err := shm.Stat(k, shm.Dir(w.st.dir))
		of := w.keys[k]
		switch {
		case of == nil:
			w.want(t, "stat", err, shm.ErrNotExist)
		case of.dead():
			if err != nil {
				w.want(t, "stat", err, shm.ErrNotExist)
			} else if info.Status != shm.StatusDead || info.Attached != 0 {
				t.Fatalf("Stat of a dead segment: %+v, want dead, and none attached", info)
			}
		default:
			w.want(t, "stat", err, nil)
			w.compare(t, info, of, shm.StatusLive)
		}
	}
	for _, h := range w.held {
		if h.of.removed {
			w.compare(t, h.info(), h.of, shm.StatusRemoved)
		}
	}
}

func (w *world) compare(t *rapid.T, info shm.Info, of *segment, status shm.Status) {
	readOnly := func(list []shm.Attachment) (n int) {
		for _, a := range list {
			if a.ReadOnly {
				n++
			}
		}
		return n
	}
	want := 0
	for _, h := range of.attached {
		if h.readOnly {
			want++
		}
	}
	if info.Attached != len(of.attached) || readOnly(info.Attachments) != want || info.Size != int64(of.size) || info.Status != status {
		t.Fatalf("Stat or Info: %+v, want %d attached, %d of them read-only, size %d, %v", info, len(of.attached), want, of.size, status)
	}
	if info.Abandoned != of.abandoned {
		t.Fatalf("abandoned: %v, want %v", info.Abandoned, of.abandoned)
	}
	if (info.Owner == nil) != (of.owner == nil) || of.owner != nil && info.Owner.PID != of.owner.p.pid {
		t.Fatalf("owner %+v, want %+v", info.Owner, of.owner)
	}
}

// finish detaches everything, and checks that the store is empty.
func (w *world) finish(t *rapid.T) {
	for _, p := range w.procs {
		p.do(request{Op: "closeall"})
	}
	if _, err := shm.Sweep(shm.Dir(w.st.dir)); err != nil {
		t.Fatal(err)
	}
	if left := w.st.files(); len(left) > 0 {
		t.Fatalf("the store contains %q after the last Detach and a Sweep, want nothing", left)
	}
}

// Three processes use two keys. Each may be killed or exit, and another one starts.
func TestRandomCallsAgreeWithAModel(t *testing.T) {
	st := newStore(t)
	procs := st.startN(3)
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{st: st, procs: procs, keys: map[string]*segment{}}
		defer w.finish(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"create": w.create, "attach": w.attach, "attach again": w.attach, "open": w.open,
			"detach": w.detach, "detach again": w.detach, "grow": w.grow, "kill": w.kill, "exit": w.exit,
			"remove": w.remove, "sweep": w.sweep, "trylock": w.trylock, "trylock again": w.trylock, "unlock": w.unlock,
			"": w.check,
		})
	})
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
					t.Fatalf("Grow of a read-only attachment: %v, want %v", err, shm.ErrReadOnly)
				}
			},
			"slice": func(t *rapid.T) {
				n := rapid.IntRange(0, len(model)/4+1).Draw(t, "n")
				values, err := shm.Slice[int32](reader, 0, n)
				if fits := n > 0 && 4*n <= len(model); (err == nil) != fits {
					t.Fatalf("slice of %d in %d: %v", n, len(model), err)
				}
				if err == nil && string(asBytes(uint32(values[n-1]))) != string(model[4*n-4:4*n]) {
					t.Fatalf("value %d is %x, want %x", n-1, values[n-1], model[4*n-4:4*n])
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
						t.Fatal("a slice from before Grow has other contents than the segment")
					}
				}
			},
		})
	})
}

func asBytes(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
