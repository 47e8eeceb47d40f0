package test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"qshm/shm"
)

// A random sequence of calls by three processes, of which any may be killed and
// started again, over two keys, against the model below.

// segment is what the model knows of a segment.
type segment struct {
	mark      byte // what its first byte is
	size      int
	attached  []*holder
	owner     *holder
	abandoned bool // the last writer died inside the lock
	removed   bool
}

// holder is what the model knows of an attachment.
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
	keys  map[string]*segment // live, or dead and perhaps not cleared away yet
	held  []*holder
	marks byte
}

// dead tells a segment that everybody may clear away at any time.
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
		t.Skip("nobody is attached")
	}
	return w.held[rapid.IntRange(0, len(w.held)-1).Draw(t, "attachment")]
}

// attached notes a new attachment, and checks that it shows the right memory.
func (w *world) attached(t *rapid.T, s *attachment, of *segment, proc int, readOnly bool) {
	h := &holder{s, of, proc, readOnly}
	of.attached = append(of.attached, h)
	w.held = append(w.held, h)
	if n := s.size(); n != of.size {
		t.Fatalf("size %d, want %d", n, of.size)
	}
	if got := s.peek(0, 1)[0]; got != of.mark {
		t.Fatalf("the memory holds %d, want %d: it is another segment", got, of.mark)
	}
}

// created notes a new segment, and marks it.
func (w *world) created(t *rapid.T, s *attachment, k string, size, proc int) {
	of := &segment{size: size}
	w.attached(t, s, of, proc, false)
	w.marks++
	of.mark = w.marks
	s.poke(0, string([]byte{of.mark}))
	w.keys[k] = of
}

func (w *world) want(t *rapid.T, op string, err, kind error) {
	if !errors.Is(err, kind) || (kind == nil) != (err == nil) {
		t.Fatalf("%s: %v, want %v", op, err, kind)
	}
}

func (w *world) create(t *rapid.T) {
	k, p, size := w.drawKey(t), w.drawProc(t), rapid.IntRange(1, 9000).Draw(t, "size")
	s, err := w.procs[p].tryCreate(k, size)
	if w.live(k) != nil {
		w.want(t, "create", err, shm.ErrExist)
		return
	}
	w.want(t, "create", err, nil)
	w.created(t, s, k, size, p)
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
	s, created, err := w.procs[p].tryOpen(k, size)
	w.want(t, "open", err, nil)
	of := w.live(k)
	if created != (of == nil) {
		t.Fatalf("open: created is %v, want %v", created, of == nil)
	}
	if created {
		w.created(t, s, k, size, p)
	} else {
		w.attached(t, s, of, p, false)
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
					t.Fatalf("the last detach has left the file")
				}
			}
		}
	}
}

// end is what the death of a process means.
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
		if err != nil { // somebody may have cleared it away
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
		if name[0] != '.' && !w.names(name) {
			t.Fatalf("sweep has left %s", name)
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

// check looks from outside, after each step.
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
				t.Fatalf("stat of the dead: %+v", info)
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
	if (info.Owner == nil) != (of.owner == nil) || of.owner != nil && info.Owner.PID != of.owner.p.pid {
		t.Fatalf("owner %+v, want %+v", info.Owner, of.owner)
	}
}

// over ends everything, and looks whether something is left.
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
			"detach": w.detach, "detach again": w.detach, "kill": w.kill, "exit": w.exit,
			"remove": w.remove, "sweep": w.sweep, "trylock": w.trylock, "trylock again": w.trylock, "unlock": w.unlock,
			"": w.check,
		})
	})
}
