//go:build qshmfault

package test

import (
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"go/build"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"qshm/shm"
)

// A process dies at every single step that the library has, one after the other.
// Whoever comes next must not notice, except by what the dead one had done.
//
//	go test -tags qshmfault ./test
//
// Each scenario is run once to see which steps the victim comes to, and then
// once for each of them, in which the victim dies before it takes that step.

// scene is what a scenario plays in.
type scene struct {
	*testing.T
	st        *store
	bystander *proc       // lives on
	kept      *attachment // of the bystander to "k", if it has one
	removed   bool        // "k" was removed: the bystander keeps what it has
	victim    func() *proc
}

// scenario is what happens to the victim. It is done when the victim has ended,
// or dies.
type scenario struct {
	name string
	play func(sc *scene)
}

func (sc *scene) attachBystander() {
	sc.bystander = sc.st.start()
	sc.kept = sc.bystander.create("k", 64)
	sc.kept.poke(8, "mark")
}

// leaveGarbage leaves a segment whose only process was killed, inside its lock.
func (sc *scene) leaveGarbage(k string) {
	p := sc.st.start()
	s := p.create(k, 32)
	s.poke(8, "dead")
	s.lock()
	p.kill()
}

// fragile makes calls until one ends with the process.
type fragile struct {
	p    *proc
	dead bool
}

func (f *fragile) do(r request) answer {
	f.p.t.Helper()
	if f.dead {
		return answer{}
	}
	a, err := f.p.try(r)
	switch {
	case errors.Is(err, errEnded):
		f.dead = true
	case err != nil:
		f.p.t.Errorf("the victim's %s: %v", r.Op, err)
	}
	return a
}

func (f *fragile) on(handle string, ops ...string) {
	f.p.t.Helper()
	for _, op := range ops {
		f.do(request{Op: op, Handle: handle, Data: []byte("x"), N: 16, Timeout: patience})
	}
}

func (f *fragile) segment(op string, o ...opts) string {
	f.p.t.Helper()
	r := request{Op: op, Key: key("k"), N: 64}
	r.options(o)
	return f.do(r).Handle
}

// end closes everything, in order, so that the steps of ending are steps too.
func (f *fragile) end() {
	f.do(request{Op: "closeall"})
	f.do(request{Op: "ping"})
	if !f.dead {
		f.p.exit()
	}
	f.p.awaitEnd()
}

var scenarios = []scenario{
	{"create and destroy", func(sc *scene) {
		v := fragile{p: sc.victim()}
		v.segment("create", opts{Perm: 0o660})
		v.end()
	}},
	{"create over garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := fragile{p: sc.victim()}
		v.segment("create", opts{Max: 1000})
		v.end()
	}},
	{"attach to garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := fragile{p: sc.victim()}
		if !v.dead {
			_, err := v.p.try(request{Op: "attach", Key: key("k")})
			if v.dead = errors.Is(err, errEnded); !v.dead && !errors.Is(err, shm.ErrNotExist) {
				sc.Errorf("attach: %v", err)
			}
		}
		v.end()
	}},
	{"attach and detach", func(sc *scene) {
		sc.attachBystander()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "update", "writeat", "snapshot", "readat", "detach")
		v.segment("attach", opts{ReadOnly: true})
		v.end()
	}},
	{"two attachments", func(sc *scene) {
		sc.attachBystander()
		v := fragile{p: sc.victim()}
		h := v.segment("open")
		v.segment("attach", opts{ReadOnly: true})
		v.on(h, "lock", "detach")
		v.end()
	}},
	{"last to detach", func(sc *scene) {
		p := sc.st.start()
		s := p.create("k", 64)
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		s.detach()
		v.on(h, "detach")
		v.end()
	}},
	{"last of the living", func(sc *scene) {
		p := sc.st.start()
		s := p.create("k", 64)
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		s.lock()
		p.kill()
		v.on(h, "detach")
		v.end()
	}},
	{"take a dead one's place", func(sc *scene) {
		sc.bystander = sc.st.start()
		sc.kept = sc.bystander.create("k", 64, opts{Max: 2})
		sc.kept.poke(8, "mark")
		p := sc.st.start()
		p.attach("k").lock()
		p.kill()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock", "unlock")
		v.end()
	}},
	{"take over the lock", func(sc *scene) {
		sc.attachBystander()
		p := sc.st.start()
		p.attach("k").lock()
		listening := sc.kept.begin(request{Op: "wait"})
		sc.st.awaitListener("k")
		p.kill()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock", "unlock")
		v.end()
		if sc.kept.lock(); sc.kept.version() != 0 {
			listening.must() // whoever moved the version may have died before ringing
		}
		sc.kept.unlock()
		listening.must()
	}},
	{"wait for the lock", func(sc *scene) {
		sc.attachBystander()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		if !v.dead {
			sc.kept.lock()
			w := v.p.begin(request{Op: "lock", Handle: h})
			for !w.done() && !v.p.hasEnded() && binary.NativeEndian.Uint64(sc.st.header("k")[wordOff:])&overdueBit == 0 {
				time.Sleep(time.Millisecond) // until it waits, or has died
			}
			sc.kept.unlock()
			_, err := w.outcome()
			v.dead = err != nil
		}
		v.on(h, "unlock")
		v.end()
	}},
	{"let waiters in", func(sc *scene) {
		sc.attachBystander()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock")
		if !v.dead {
			waits, listens := sc.kept.goLock(), sc.kept.begin(request{Op: "wait"})
			sc.st.awaitWaiter("k")
			sc.st.awaitListener("k")
			v.on(h, "unlock")
			waits.must()
			sc.kept.unlock()
			listens.must()
		}
		v.end()
	}},
	{"wait for a change", func(sc *scene) {
		sc.attachBystander()
		v := fragile{p: sc.victim()}
		h := v.segment("attach")
		if !v.dead {
			w := v.p.begin(request{Op: "wait", Handle: h})
			for !w.done() && !v.p.hasEnded() && binary.NativeEndian.Uint32(sc.st.header("k")[bellOff:])&bellArmed == 0 {
				time.Sleep(time.Millisecond)
			}
			sc.kept.write(0, "x")
			_, err := w.outcome()
			v.dead = err != nil
		}
		v.end()
	}},
	{"remove", func(sc *scene) {
		sc.attachBystander()
		sc.removed = true
		v := fragile{p: sc.victim()}
		v.do(request{Op: "remove", Key: key("k")})
		v.end()
	}},
	{"remove garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := fragile{p: sc.victim()}
		v.do(request{Op: "remove", Key: key("k")})
		v.end()
	}},
	{"sweep", func(sc *scene) {
		sc.attachBystander()
		sc.leaveGarbage("one")
		sc.leaveGarbage("two")
		v := fragile{p: sc.victim()}
		v.do(request{Op: "sweep"})
		v.end()
	}},
	{"look", func(sc *scene) {
		sc.attachBystander()
		sc.leaveGarbage("one")
		v := fragile{p: sc.victim()}
		v.do(request{Op: "stat", Key: key("k")})
		v.do(request{Op: "list"})
		v.end()
	}},
}

func (p *proc) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

var allCalls = flag.Bool("fault.all", false, "after a death at each step, try each call as the next one, and not one by turns")

// nextCalls are what may be the first thing that somebody does after the death.
var nextCalls = []string{"create", "open", "attach", "remove", "sweep", "stat"}

func TestDeathAtEachStep(t *testing.T) {
	reached := map[string]bool{}
	for _, s := range scenarios {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) {
			steps := traceSteps(t, s)
			seen := map[string]int{}
			for i, step := range steps {
				reached[step] = true
				seen[step]++
				at := fmt.Sprintf("%s:%d", step, seen[step])
				calls := nextCalls
				if !*allCalls {
					calls = calls[i%len(calls):][:1]
				}
				for _, next := range calls {
					t.Run(strings.ReplaceAll(at, " ", "-")+"/"+next, func(t *testing.T) {
						dieAt(t, s, at, next)
					})
				}
			}
		})
	}
	if t.Failed() {
		return
	}
	// Where a header can be gone, every lock is counted, and none the fast one.
	reached["taken"] = reached["taken"] || runtime.GOOS == "windows"
	for _, step := range namedSteps(t) {
		if !reached[step] {
			t.Errorf("no scenario comes to the step %q", step)
		}
	}
}

// traceSteps lists the steps that the victim comes to, in order.
func traceSteps(t *testing.T, s scenario) []string {
	st := newStore(t)
	out := filepath.Join(t.TempDir(), "steps")
	sc := &scene{T: t, st: st, victim: func() *proc { return st.startAs(nil, []string{"QSHM_FAULT_TRACE=" + out}) }}
	s.play(sc)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(strings.Split(string(text), "\n"), func(s string) bool { return s == "" })
}

// namedSteps lists the steps that the source names, of this system.
func namedSteps(t *testing.T) []string {
	var steps []string
	for _, dir := range []string{"../shm", "../lockfile"} {
		files, err := filepath.Glob(dir + "/*.go")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if ours, err := build.Default.MatchFile(dir, filepath.Base(path)); err != nil {
				t.Fatal(err)
			} else if !ours {
				continue
			}
			source, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range regexp.MustCompile(`\bfault\("([^"]+)"\)`).FindAllSubmatch(source, -1) {
				steps = append(steps, string(m[1]))
			}
		}
	}
	if len(steps) == 0 {
		t.Fatal("no steps in the source")
	}
	return steps
}

// dieAt plays a scenario in which the victim dies at one step, and then makes
// sure that whoever comes next does not notice.
func dieAt(t *testing.T, s scenario, at, next string) {
	st := newStore(t)
	sc := &scene{T: t, st: st, victim: func() *proc { return st.startAs(nil, []string{"QSHM_FAULT=" + at}) }}
	s.play(sc)
	p := st.start()

	if sc.kept == nil {
		sc.nobodyIsLeft(p, next)
	} else {
		sc.bystanderGoesOn(p, next)
	}
	// All who are left leave in order, and that must be enough, but for what
	// nobody has touched since.
	p.do(request{Op: "closeall"})
	if sc.bystander != nil {
		sc.bystander.do(request{Op: "closeall"})
	}
	if _, err := shm.Sweep(shm.Dir(st.dir)); err != nil {
		t.Error(err)
	}
	st.wantFiles()
}

// nobodyIsLeft: there is nobody else, so that the key is free.
func (sc *scene) nobodyIsLeft(p *proc, next string) {
	switch next {
	case "open":
		if _, created := p.open("k", 48); !created {
			sc.Error("the first call after the death attaches to garbage")
		}
		return
	case "attach":
		_, err := p.tryAttach("k")
		wantError(sc, err, shm.ErrNotExist)
	case "remove":
		if err := p.tryRemove("k"); err != nil {
			wantError(sc, err, shm.ErrNotExist)
		}
	case "sweep":
		p.sweep()
		sc.st.wantFiles()
	case "stat":
		if info, err := p.tryStat("k"); err != nil {
			wantError(sc, err, shm.ErrNotExist)
		} else if info.Status != shm.StatusDead || info.Attached != 0 {
			sc.Errorf("stat: %+v", info)
		}
	}
	s := p.create("k", 48)
	if got := s.peek(0, 48); got != string(make([]byte, 48)) {
		sc.Errorf("the new memory holds %q", got)
	}
	if !s.tryLock() || s.abandoned() {
		sc.Error("the new lock is not free and clean")
	}
}

// bystanderGoesOn: one process was attached all the time, and its segment is there.
func (sc *scene) bystanderGoesOn(p *proc, next string) {
	info := sc.kept.info()
	wantPIDs(sc.T, info, sc.bystander)
	if got := sc.kept.peek(8, 4); got != "mark" {
		sc.Errorf("the memory holds %q", got)
	}
	free := sc.removed // whether the key is free by now
	if sc.removed && info.Status == shm.StatusLive {
		free = false // it died before it had removed anything
	}
	switch next {
	case "create":
		_, err := p.tryCreate("k", 48)
		if free {
			wantNoError(sc, err)
		} else {
			wantError(sc, err, shm.ErrExist)
		}
	case "open":
		s, created, err := p.tryOpen("k", 48)
		if ok := wantNoError(sc, err); ok && created != free {
			sc.Errorf("open: created is %v, want %v", created, free)
		} else if ok && !created && s.peek(8, 4) != "mark" {
			sc.Error("attached to something else")
		}
	case "remove":
		if err := p.tryRemove("k"); err != nil || !free {
			if free {
				wantError(sc, err, shm.ErrNotExist)
			} else {
				wantNoError(sc, err)
			}
		}
		free = true
	case "sweep":
		p.sweep()
	case "stat":
		if info, err := p.tryStat("k"); err == nil {
			wantPIDs(sc.T, info, sc.bystander)
		} else {
			wantError(sc, err, shm.ErrNotExist)
		}
	}
	if !free {
		p.do(request{Op: "closeall"})
		s := p.attach("k")
		s.lock()
		s.unlock()
		wantPIDs(sc.T, p.stat("k"), p, sc.bystander)
	}
	sc.kept.lock()
	sc.kept.unlock()
	if got := sc.kept.read(8, 4); got != "mark" {
		sc.Errorf("the memory holds %q", got)
	}
	if info := sc.kept.info(); info.Status == shm.StatusDead {
		sc.Errorf("a process that is attached is told: %+v", info)
	}
}

func wantNoError(t testing.TB, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
