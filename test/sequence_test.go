package test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qshm/keymap"
	"qshm/shm"
)

// Random sequences of calls of three processes on two keys are compared with the model
// below. Any of the processes may be killed and started again.

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
		t.Fatalf("the memory contains %d, want %d: it is another segment", got, of.mark)
	}
}

// mark draws whether Init writes the mark of the next segment.
func (w *world) mark(t *rapid.T) opts {
	if w.marks++; rapid.Bool().Draw(t, "Init") {
		return opts{Init: string([]byte{w.marks})}
	}
	return opts{}
}

// created adds a segment to the model, and marks it if Init has not.
func (w *world) created(t *rapid.T, s *attachment, k string, size, proc int, o opts) {
	of := &segment{size: size}
	if o.Init != "" {
		of.mark = w.marks
	}
	w.attached(t, s, of, proc, false)
	if end := s.peek(int64(min(size, 2)-1), 1)[0]; size > 1 && end != 0 {
		t.Fatalf("new memory contains %d", end)
	}
	if of.mark == 0 {
		of.mark = w.marks
		s.poke(0, string([]byte{of.mark}))
	}
	a := s.do(request{Op: "replaced"})
	switch was := w.keys[k]; {
	case a.OK && was == nil:
		t.Fatalf("there was nothing to replace: %+v", a.Infos[0])
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
			t.Fatalf("the end contains %d", end)
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
				if slices.Contains(w.st.files(), base(w.st.path(k))) {
					t.Fatalf("the last detach has not removed the file")
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
			t.Fatalf("swept %+v, which was not dead", info)
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
		if base(w.st.path(k)) == name {
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
		t.Fatalf("trylock: %v, and the owner is %v", a.OK, h.of.owner)
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
				t.Fatalf("stat of a dead segment: %+v", info)
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
		t.Fatalf("%+v, want %d attached, %d of them read-only, size %d, %v", info, len(of.attached), want, of.size, status)
	}
	if info.Abandoned != of.abandoned {
		t.Fatalf("abandoned: %v, want %v", info.Abandoned, of.abandoned)
	}
	if (info.Owner == nil) != (of.owner == nil) || of.owner != nil && info.Owner.PID != of.owner.p.pid {
		t.Fatalf("owner %+v, want %+v", info.Owner, of.owner)
	}
}

// over detaches everything, and checks that the store is empty.
func (w *world) over(t *rapid.T) {
	for _, p := range w.procs {
		p.do(request{Op: "closeall"})
	}
	if _, err := shm.Sweep(shm.Dir(w.st.dir)); err != nil {
		t.Fatal(err)
	}
	if left := w.st.files(); len(left) > 0 {
		t.Fatalf("left: %q", left)
	}
}

func TestSequences(t *testing.T) {
	st := newStore(t)
	procs := st.startN(3)
	rapid.Check(t, func(rt *rapid.T) {
		w := &world{st: st, procs: procs, keys: map[string]*segment{}}
		defer w.over(rt)
		rt.Repeat(map[string]func(*rapid.T){
			"create": w.create, "attach": w.attach, "attach again": w.attach, "open": w.open,
			"detach": w.detach, "detach again": w.detach, "grow": w.grow, "kill": w.kill, "exit": w.exit,
			"remove": w.remove, "sweep": w.sweep, "trylock": w.trylock, "trylock again": w.trylock, "unlock": w.unlock,
			"": w.check,
		})
	})
}
