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

	"qshm/lockfile"
	"qshm/shm"
)

// A process, the victim, dies at each step of the library, one after the other. The
// next process finds what the documentation says, as if the victim had detached.
//
//	go test -tags qshmfault -run DeathAt ./test
//
// Each scenario runs once to list the steps that the victim reaches, and then once for
// each of these steps: the victim dies just before it.

// A scene is what a scenario needs and leaves.
type scene struct {
	*testing.T
	st        *store
	bystander *proc        // a process that lives on, or nil
	kept      *attachment  // of the bystander to "k", or nil
	removed   bool         // "k" is removed; the bystander stays attached
	victim    func() *proc // starts the victim
}

// A scenario is a sequence of calls of the victim and others. play returns when the victim
// has exited or died.
type scenario struct {
	name string
	play func(sc *scene)
}

func (sc *scene) attachBystander() {
	sc.bystander = sc.st.start()
	sc.kept = sc.bystander.create("k", 64)
	sc.kept.poke(8, "mark")
}

// leaveGarbage makes a segment whose only process is killed while it holds the lock.
func (sc *scene) leaveGarbage(k string) {
	p := sc.st.start()
	s := p.create(k, 32)
	s.poke(8, "dead")
	s.lock()
	p.kill()
}

// A victimProc makes calls until its process dies in one of them.
type victimProc struct {
	p    *proc
	dead bool
}

func (v *victimProc) do(r request) answer {
	v.p.t.Helper()
	if v.dead {
		return answer{}
	}
	a, err := v.p.try(r)
	switch {
	case errors.Is(err, errEnded):
		v.dead = true
	case err != nil:
		v.p.t.Errorf("the victim's %s: %v, want success or the end of the process", r.Op, err)
	}
	return a
}

func (v *victimProc) on(handle string, ops ...string) {
	v.p.t.Helper()
	for _, op := range ops {
		v.do(request{Op: op, Handle: handle, Data: []byte("x"), N: 16, Timeout: patience})
	}
}

func (v *victimProc) segment(op string, o ...opts) string {
	v.p.t.Helper()
	r := request{Op: op, Key: key("k"), N: 64}
	r.options(o)
	return v.do(r).Handle
}

// end detaches everything and exits, so that the victim reaches the steps of detaching too.
func (v *victimProc) end() {
	v.do(request{Op: "closeall"})
	v.do(request{Op: "ping"})
	if !v.dead {
		v.p.exit()
	}
	v.p.awaitEnd()
}

var scenarios = []scenario{
	{"create and destroy", func(sc *scene) {
		v := victimProc{p: sc.victim()}
		v.segment("create", opts{Perm: 0o660})
		v.end()
	}},
	{"create over garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := victimProc{p: sc.victim()}
		v.segment("create", opts{Max: 1000})
		v.end()
	}},
	{"attach to garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := victimProc{p: sc.victim()}
		if !v.dead {
			_, err := v.p.try(request{Op: "attach", Key: key("k")})
			if v.dead = errors.Is(err, errEnded); !v.dead && !errors.Is(err, shm.ErrNotExist) {
				sc.Errorf("Attach to garbage: %v, want %v", err, shm.ErrNotExist)
			}
		}
		v.end()
	}},
	{"create with Init", func(sc *scene) {
		v := victimProc{p: sc.victim()}
		v.segment("create", opts{Init: "initialised", ReadOnly: true})
		v.end()
	}},
	{"grow", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		v.do(request{Op: "grow", Handle: h, N: 9000})
		v.do(request{Op: "grow", Handle: h, N: 50_000})
		v.end()
	}},
	{"attach and detach", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "update", "writeat", "snapshot", "readat", "detach")
		v.segment("attach", opts{ReadOnly: true})
		v.end()
	}},
	{"two attachments", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("open")
		v.segment("attach", opts{ReadOnly: true})
		v.on(h, "lock", "detach")
		v.end()
	}},
	{"last to detach", func(sc *scene) {
		p := sc.st.start()
		s := p.create("k", 64)
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		s.detach()
		v.on(h, "detach")
		v.end()
	}},
	{"last live process to detach", func(sc *scene) {
		p := sc.st.start()
		s := p.create("k", 64)
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		s.lock()
		p.kill()
		v.on(h, "detach")
		v.end()
	}},
	{"claim the slot of a dead process", func(sc *scene) {
		sc.bystander = sc.st.start()
		sc.kept = sc.bystander.create("k", 64, opts{Max: 2})
		sc.kept.poke(8, "mark")
		p := sc.st.start()
		p.attach("k").lock()
		p.kill()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock", "unlock")
		v.end()
	}},
	{"take over the lock", func(sc *scene) {
		sc.attachBystander()
		p := sc.st.start()
		p.attach("k").lock()
		waiting := sc.kept.begin(request{Op: "wait"})
		sc.st.awaitWatcher("k")
		p.kill()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock", "unlock")
		v.end()
		if sc.kept.lock(); sc.kept.version() != 0 {
			waiting.must() // even if the process that moved the version died before it woke the waiter
		}
		sc.kept.unlock()
		waiting.must()
	}},
	{"wait for the lock", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		if !v.dead {
			sc.kept.lock()
			w := v.p.begin(request{Op: "lock", Handle: h})
			for !w.done() && !v.p.hasEnded() && binary.NativeEndian.Uint64(sc.st.header("k")[wordOff:])&starvingBit == 0 {
				time.Sleep(time.Millisecond) // until the victim is starving or has died
			}
			sc.kept.unlock()
			_, err := w.outcome()
			v.dead = err != nil
		}
		v.on(h, "unlock")
		v.end()
	}},
	{"unlock with waiters", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		v.on(h, "lock")
		if !v.dead {
			locking, waiting := sc.kept.goLock(), sc.kept.begin(request{Op: "wait"})
			sc.st.awaitWaiter("k")
			sc.st.awaitWatcher("k")
			v.on(h, "unlock")
			locking.must()
			sc.kept.unlock()
			waiting.must()
		}
		v.end()
	}},
	{"notify", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		v.on(v.segment("attach"), "notify")
		v.end()
	}},
	{"wait for a change", func(sc *scene) {
		sc.attachBystander()
		v := victimProc{p: sc.victim()}
		h := v.segment("attach")
		if !v.dead {
			w := v.p.begin(request{Op: "wait", Handle: h})
			for !w.done() && !v.p.hasEnded() && binary.NativeEndian.Uint32(sc.st.header("k")[eventOff:])&eventArmed == 0 {
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
		v := victimProc{p: sc.victim()}
		v.do(request{Op: "remove", Key: key("k")})
		v.end()
	}},
	{"remove garbage", func(sc *scene) {
		sc.leaveGarbage("k")
		v := victimProc{p: sc.victim()}
		v.do(request{Op: "remove", Key: key("k")})
		v.end()
	}},
	{"sweep", func(sc *scene) {
		sc.attachBystander()
		sc.leaveGarbage("one")
		sc.leaveGarbage("two")
		v := victimProc{p: sc.victim()}
		v.do(request{Op: "sweep"})
		v.end()
	}},
	{"look", func(sc *scene) {
		sc.attachBystander()
		sc.leaveGarbage("one")
		v := victimProc{p: sc.victim()}
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

var allCalls = flag.Bool("fault.all", false, "after each death, try each call as the next one, instead of one in turn")

// nextCalls are the calls that another process may make first after the death.
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
	// Windows has no fast path of Lock, and only sibling files are removed one by one.
	reached["fast"] = reached["fast"] || runtime.GOOS == "windows"
	reached["remove_sibling"] = reached["remove_sibling"] || slotLocks() != lockfile.SiblingFiles
	for _, step := range namedSteps(t) {
		if !reached[step] {
			t.Errorf("no scenario reaches the step %q of the source", step)
		}
	}
}

// traceSteps lists the steps that the victim reaches, in order.
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

// namedSteps lists the steps that the source names for this system.
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
			for _, m := range regexp.MustCompile(`\bfailpoint(?:\.At)?\("([^"]+)"\)`).FindAllSubmatch(source, -1) {
				steps = append(steps, string(m[1]))
			}
		}
	}
	if len(steps) == 0 {
		t.Fatal("the source has no fail points")
	}
	return steps
}

// dieAt plays a scenario in which the victim dies at one step, and then checks what
// another process finds.
func dieAt(t *testing.T, s scenario, at, next string) {
	st := newStore(t)
	sc := &scene{T: t, st: st, victim: func() *proc { return st.startAs(nil, []string{"QSHM_FAULT=" + at}) }}
	s.play(sc)
	p := st.start()

	if sc.kept == nil {
		sc.wantKeyFree(p, next)
	} else {
		sc.wantBystanderAttached(p, next)
	}
	// After the last detach, the store contains at most garbage of other keys.
	p.do(request{Op: "closeall"})
	if sc.bystander != nil {
		sc.bystander.do(request{Op: "closeall"})
	}
	if _, err := shm.Sweep(shm.Dir(st.dir)); err != nil {
		t.Error(err)
	}
	st.wantFiles()
}

// wantKeyFree checks that the key is free: no live process was attached.
func (sc *scene) wantKeyFree(p *proc, next string) {
	switch next {
	case "open":
		if _, created := p.open("k", 48); !created {
			sc.Error("Open has attached to garbage, want it created")
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
			sc.Errorf("Stat: %+v, want dead, and none attached", info)
		}
	}
	s := p.create("k", 48)
	if got := s.peek(0, 48); got != string(make([]byte, 48)) {
		sc.Errorf("the new memory contains %q, want zeros", got)
	}
	if !s.tryLock() || s.abandoned() {
		sc.Error("the lock of the new segment is taken or abandoned, want it free")
	}
}

// wantBystanderAttached checks that the bystander's segment still works.
func (sc *scene) wantBystanderAttached(p *proc, next string) {
	info := sc.kept.info()
	wantPIDs(sc.T, info, sc.bystander)
	if got := sc.kept.peek(8, 4); got != "mark" {
		sc.Errorf("the memory contains %q, want %q", got, "mark")
	}
	free := sc.removed && info.Status != shm.StatusLive // or the victim died before it had removed the segment
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
			sc.Error("Open has attached to another segment")
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
		sc.Errorf("the memory contains %q, want %q", got, "mark")
	}
	if info := sc.kept.info(); info.Status == shm.StatusDead {
		sc.Errorf("Info of an attached segment: %+v, want it live or removed", info)
	}
	if free {
		return
	}
	sc.kept.grow(60_000)
	if got := sc.kept.peek(59_990, 10); sc.kept.size() != 60_000 || got != string(make([]byte, 10)) {
		sc.Errorf("Grow to 60000 bytes: the size is %d, and the last bytes are %q, want zeros", sc.kept.size(), got)
	}
}

func wantNoError(t testing.TB, err error) bool {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
	return err == nil
}
