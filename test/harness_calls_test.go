package test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"slices"
	"testing"
	"time"

	"qshm/shm"
)

// The calls that a test makes in its processes, and what it checks and waits for.

// key is a key in a request.
func key(k string) []byte { return []byte(k) }

func (p *proc) tryCreate(k string, size int, o ...opts) (*attachment, error) {
	p.t.Helper()
	s, _, err := p.attachBy(request{Op: "create", Key: key(k), N: size}, o)
	return s, err
}

func (p *proc) create(k string, size int, o ...opts) *attachment {
	p.t.Helper()
	s, err := p.tryCreate(k, size, o...)
	p.check("create", err)
	return s
}

func (p *proc) tryAttach(k string, o ...opts) (*attachment, error) {
	p.t.Helper()
	s, _, err := p.attachBy(request{Op: "attach", Key: key(k)}, o)
	return s, err
}

func (p *proc) attach(k string, o ...opts) *attachment {
	p.t.Helper()
	s, err := p.tryAttach(k, o...)
	p.check("attach", err)
	return s
}

func (p *proc) tryOpen(k string, size int, o ...opts) (*attachment, bool, error) {
	p.t.Helper()
	return p.attachBy(request{Op: "open", Key: key(k), N: size}, o)
}

func (p *proc) open(k string, size int, o ...opts) (s *attachment, created bool) {
	p.t.Helper()
	s, created, err := p.tryOpen(k, size, o...)
	p.check("open", err)
	return s, created
}

func (p *proc) attachBy(r request, o []opts) (*attachment, bool, error) {
	p.t.Helper()
	r.options(o)
	a, err := p.try(r)
	return &attachment{p: p, handle: a.Handle, key: string(r.Key)}, a.OK, err
}

func (p *proc) check(op string, err error) {
	p.t.Helper()
	if err != nil {
		p.t.Fatalf("process %d: %s: %v\n%s", p.pid, op, err, &p.stderr)
	}
}

func (p *proc) stat(k string) shm.Info {
	p.t.Helper()
	info, err := p.tryStat(k)
	p.check("stat", err)
	return info
}

func (p *proc) tryStat(k string) (shm.Info, error) {
	p.t.Helper()
	a, err := p.try(request{Op: "stat", Key: key(k)})
	if err != nil {
		return shm.Info{}, err
	}
	return a.Infos[0], nil
}

func (p *proc) list() []shm.Info {
	p.t.Helper()
	return p.do(request{Op: "list"}).Infos
}

func (p *proc) sweep() []shm.Info {
	p.t.Helper()
	return p.do(request{Op: "sweep"}).Infos
}

func (p *proc) tryRemove(k string) error {
	p.t.Helper()
	_, err := p.try(request{Op: "remove", Key: key(k)})
	return err
}

func (p *proc) remove(k string) {
	p.t.Helper()
	p.check("remove", p.tryRemove(k))
}

// An attachment is a *shm.Segment in another process.
type attachment struct {
	p      *proc
	handle string
	key    string
}

func (s *attachment) try(r request) (answer, error) {
	s.p.t.Helper()
	r.Handle = s.handle
	return s.p.try(r)
}

func (s *attachment) do(r request) answer {
	s.p.t.Helper()
	r.Handle = s.handle
	return s.p.do(r)
}

func (s *attachment) begin(r request) *pending {
	r.Handle = s.handle
	return s.p.begin(r)
}

func (s *attachment) detach() { s.p.t.Helper(); s.do(request{Op: "detach"}) }

func (s *attachment) lock() { s.p.t.Helper(); s.do(request{Op: "lock"}) }

func (s *attachment) unlock() { s.p.t.Helper(); s.do(request{Op: "unlock"}) }

func (s *attachment) tryLock() bool { s.p.t.Helper(); return s.do(request{Op: "trylock"}).OK }

func (s *attachment) abandoned() bool { s.p.t.Helper(); return s.do(request{Op: "abandoned"}).OK }

func (s *attachment) size() int { s.p.t.Helper(); return s.do(request{Op: "size"}).N }

func (s *attachment) grow(n int) { s.p.t.Helper(); s.do(request{Op: "grow", N: n}) }

func (s *attachment) version() uint32 { s.p.t.Helper(); return s.do(request{Op: "version"}).Version }

func (s *attachment) info() shm.Info { s.p.t.Helper(); return s.do(request{Op: "info"}).Infos[0] }

func (s *attachment) goLock() *pending {
	return s.begin(request{Op: "lock"})
}

// lockWithin is LockContext with a time-out.
func (s *attachment) lockWithin(d time.Duration) error {
	s.p.t.Helper()
	_, err := s.try(request{Op: "lockcontext", Timeout: d})
	return err
}

// wantHeld checks that another attachment holds the lock, and keeps it.
func (s *attachment) wantHeld() {
	s.p.t.Helper()
	if err := s.lockWithin(livenessWait); !errors.Is(err, context.DeadlineExceeded) {
		s.p.t.Errorf("LockContext of a lock that a live owner holds: %v, want %v", err, context.DeadlineExceeded)
	}
	if s.tryLock() {
		s.p.t.Error("TryLock has taken the lock from a live owner")
	}
}

// takeOverFrom waits for the lock, and kills its owner meanwhile. Then s holds it.
func (s *attachment) takeOverFrom(owner *proc) {
	s.p.t.Helper()
	locking := s.goLock()
	owner.kill()
	locking.must()
	if !s.abandoned() {
		s.p.t.Error("Abandoned is false after the owner's death, want true")
	}
}

// livenessWait is how long wantHeld waits: longer than it takes until a waiter asks whether
// the owner is alive.
const livenessWait = 40 * time.Millisecond

func (s *attachment) write(off int64, text string) {
	s.p.t.Helper()
	s.do(request{Op: "writeat", Off: off, Data: []byte(text)})
}

func (s *attachment) read(off int64, n int) string {
	s.p.t.Helper()
	return string(s.do(request{Op: "readat", Off: off, N: n}).Data)
}

// poke and peek write and read the memory directly, without the lock.
func (s *attachment) poke(off int64, text string) {
	s.p.t.Helper()
	s.do(request{Op: "poke", Off: off, Data: []byte(text)})
}

func (s *attachment) peek(off int64, n int) string {
	s.p.t.Helper()
	return string(s.do(request{Op: "peek", Off: off, N: n}).Data)
}

func pids(info shm.Info) []int {
	var list []int
	for _, a := range info.Attachments {
		list = append(list, a.PID)
	}
	slices.Sort(list)
	return list
}

func wantPIDs(t *testing.T, info shm.Info, procs ...*proc) {
	t.Helper()
	want := []int{}
	for _, p := range procs {
		want = append(want, p.pid)
	}
	slices.Sort(want)
	if got := pids(info); !slices.Equal(got, want) || info.Attached != len(want) {
		t.Errorf("attached: %d, by the processes %v, want %v", info.Attached, got, want)
	}
}

func wantError(t testing.TB, err, kind error) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("the error is %v, want %v", err, kind)
	}
}

// The offsets of the lock word and the event word in the file, and the bits that
// show that a process waits: see shm/FORMAT.md.
const (
	wordOff     = 192
	eventOff    = 256
	starvingBit = 1 << 30
	waitersBit  = 1 << 31
	eventArmed  = 1
)

func (st *store) header(key string) []byte {
	st.t.Helper()
	file, err := os.Open(st.path(key))
	if err != nil {
		st.t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 512)
	if _, err := file.ReadAt(b[1:], 1); err != nil {
		st.t.Fatal(err)
	}
	return b
}

func (st *store) await(what string, is func(header []byte) bool, key string) {
	st.t.Helper()
	eventually(st.t, what, func() bool { return is(st.header(key)) })
}

// awaitWaiter returns when a process has waited for the lock so long that it is starving.
func (st *store) awaitWaiter(key string) {
	st.t.Helper()
	st.await("a process waits for the lock", func(b []byte) bool {
		const both = starvingBit | waitersBit
		return binary.NativeEndian.Uint64(b[wordOff:])&both == both
	}, key)
}

// awaitWatcher returns when a process waits for the version to move.
func (st *store) awaitWatcher(key string) {
	st.t.Helper()
	st.await("a process waits for a change", func(b []byte) bool {
		return binary.NativeEndian.Uint32(b[eventOff:])&eventArmed != 0
	}, key)
}

// eventually waits until ok reports true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
