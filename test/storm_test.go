package test

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/single"
)

// Processes that do all there is to do, at random, and are killed or stopped at
// random instants.

var (
	stormKills = flag.Int("storm.kills", 0, "how many processes TestCrashStorm kills; 10000 for a long run")
	stormSeed  = flag.Uint64("storm.seed", 0, "where the random numbers of the storms begin; 0: anywhere")
)

const (
	stormKey  = "storm" // one process keeps it attached throughout
	stormSize = 256
	tallyKey  = "tally" // how many updates each worker has done
	workers   = 4
)

// A record fills the segment: a number, its complement, and its lowest byte
// throughout. Only the number counts; the rest shows whether it is torn.
func record(n uint64, data []byte) {
	binary.NativeEndian.PutUint64(data, n)
	for i := 16; i < len(data); i++ {
		data[i] = byte(n)
	}
	binary.NativeEndian.PutUint64(data[8:], ^n)
}

func recorded(data []byte) (uint64, error) {
	n, m := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint64(data[8:])
	ok := n == ^m || n == 0 && m == 0
	for i := 16; i < len(data); i++ {
		ok = ok && data[i] == byte(n)
	}
	if !ok {
		return n, fmt.Errorf("torn: %d, %d, % x", n, ^m, data[16:])
	}
	return n, nil
}

// add is an update: the caller holds the lock. If the owner before died inside,
// the number is what it is, and the rest is made to fit.
func add(s *shm.Segment, data []byte, tally *atomic.Uint64) error {
	n, err := recorded(data)
	if err != nil {
		if !s.Abandoned() {
			return fmt.Errorf("and nobody was told: %w", err)
		}
		record(n, data)
	}
	record(n+1, data)
	if tally != nil {
		tally.Add(1)
	}
	return nil
}

func init() {
	extra["storm"] = func(c *child, _ context.Context, r request, a *answer) error {
		keep, err := shm.Attach(stormKey)
		if err != nil {
			return err
		}
		tallies, err := shm.Attach(tallyKey)
		if err != nil {
			return err
		}
		tally, err := shm.Value[atomic.Uint64](tallies, 8*r.N)
		if err != nil {
			return err
		}
		w := &stormWorker{keep: keep, tally: tally, rand: rand.New(rand.NewPCG(uint64(r.Off), uint64(r.N)))}
		for {
			select {
			case <-c.gate:
				return errors.Join(w.detach(), keep.Detach(), tallies.Detach())
			default:
			}
			if err := w.step(); err != nil {
				return err
			}
			a.Version++
		}
	}
}

type stormWorker struct {
	keep  *shm.Segment // to what somebody keeps
	seg   *shm.Segment // to what comes and goes
	tally *atomic.Uint64
	rand  *rand.Rand
}

func (w *stormWorker) detach() error {
	if w.seg == nil {
		return nil
	}
	err := w.seg.Detach()
	w.seg = nil
	return err
}

// step does one thing. It returns what must not happen.
func (w *stormWorker) step() (err error) {
	k := fmt.Sprint("gust ", w.rand.IntN(2))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(w.rand.IntN(2000))*time.Microsecond)
	defer cancel()
	op := w.rand.IntN(20)
	defer func() {
		if err != nil {
			err = fmt.Errorf("operation %d: %w", op, err)
		}
	}()
	s, tally := w.keep, w.tally
	if w.seg != nil && w.rand.IntN(2) == 0 {
		s, tally = w.seg, nil
	}
	buf := make([]byte, stormSize)
	switch op {
	case 0, 1, 2:
		if w.seg == nil {
			w.seg, _, err = shm.Open(k, stormSize)
		}
		return err
	case 3:
		if w.seg == nil {
			w.seg, err = shm.Create(k, stormSize)
		}
		return but(err, shm.ErrExist)
	case 4:
		if w.seg == nil {
			w.seg, err = shm.Attach(k)
		}
		return but(err, shm.ErrNotExist)
	case 5, 6:
		return w.detach()
	case 7:
		return but(shm.Remove(k), shm.ErrNotExist)
	case 8:
		_, err = shm.Sweep()
		return err
	case 9:
		_, err = shm.List()
		return err
	case 10:
		_, err = shm.Stat(k)
		return but(err, shm.ErrNotExist)
	case 11:
		v, _ := s.Wait(ctx, s.Version())
		_ = v
		return nil
	case 12, 13:
		_, _, err = s.Snapshot(buf)
		if err == nil {
			_, err = recorded(buf)
		}
		return but(err, shm.ErrAbandoned)
	case 14:
		err = s.LockContext(ctx)
	case 15:
		ok, lockErr := s.TryLock()
		if err = lockErr; err == nil && !ok {
			return nil
		}
	case 16:
		inst, err := single.Acquire("single")
		if err == nil {
			err = inst.Close()
		}
		return but(err, single.ErrRunning)
	default:
		return s.Update(func(data []byte) error { return add(s, data, tally) })
	}
	if err != nil {
		return but(err, context.DeadlineExceeded)
	}
	return errors.Join(add(s, s.Data(), tally), s.Unlock())
}

// but lets some errors pass.
func but(err error, fine ...error) error {
	for _, f := range fine {
		if errors.Is(err, f) {
			return nil
		}
	}
	return err
}

func stormRand(t *testing.T) *rand.Rand {
	seed := *stormSeed
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("-storm.seed=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// stormKeeper starts the process that keeps what the storm must not take away.
func stormKeeper(st *store) (keep, tally *attachment) {
	keeper := st.start()
	return keeper.create(stormKey, stormSize), keeper.create(tallyKey, 8*workers)
}

func blow(p *proc, worker int, rnd *rand.Rand) *pending {
	return p.begin(request{Op: "storm", N: worker, Off: int64(rnd.Uint32())})
}

func TestCrashStorm(t *testing.T) {
	kills := *stormKills
	if kills == 0 {
		kills = 300
	}
	if testing.Short() {
		kills = min(kills, 40)
	}
	rnd := stormRand(t)
	st := newStore(t)
	keep, tally := stormKeeper(st)
	looker := st.start()
	for killed := 0; killed < kills && !t.Failed(); {
		procs := st.startN(workers)
		var calls []*pending
		for i, p := range procs {
			calls = append(calls, blow(p, i, rnd))
		}
		for _, i := range rnd.Perm(workers) {
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond) // any instant will do
			procs[i].kill()
			killed++
			if _, err := calls[i].outcome(); !errors.Is(err, errEnded) {
				t.Errorf("worker: %v", err)
			}
		}
		afterTheStorm(t, st, keep, tally, looker, killed)
	}
}

// afterTheStorm: all workers are dead, and it must look as if they had detached.
func afterTheStorm(t *testing.T, st *store, keep, tally *attachment, looker *proc, killed int) {
	t.Helper()
	wantPIDs(t, looker.stat(stormKey), keep.p)
	keep.lock()
	abandoned := keep.abandoned()
	n, err := recorded([]byte(keep.peek(0, stormSize)))
	if err != nil && !abandoned {
		t.Errorf("nobody was told: %v", err)
	}
	if err != nil {
		b := make([]byte, stormSize)
		record(n, b)
		keep.poke(0, string(b))
	}
	keep.unlock()
	var done uint64
	for i := range workers {
		done += binary.NativeEndian.Uint64([]byte(tally.peek(8*int64(i), 8)))
	}
	// Each death may have come between the update and its count.
	if n < done || n > done+uint64(killed) {
		t.Errorf("the counter says %d, the workers did %d, and %d died", n, done, killed)
	}
	// The next call, whichever it is, works the first time.
	for i, k := range []string{"gust 0", "gust 1"} {
		if (killed/workers+i)%2 == 0 {
			s := looker.create(k, 16)
			if got := s.peek(0, 16); got != string(make([]byte, 16)) {
				t.Errorf("new memory holds %q", got)
			}
			if !s.tryLock() {
				t.Error("a new lock is taken")
			}
			s.detach()
		} else if _, err := looker.tryAttach(k); !errors.Is(err, shm.ErrNotExist) {
			t.Errorf("attach to what nobody has: %v", err)
		}
	}
	looker.sweep()
	segments := 0
	for _, name := range st.files() {
		if name[0] != '.' {
			segments++
		}
	}
	if files := st.files(); segments != 2 || len(files) != 3 {
		t.Errorf("left: %q", files)
	}
}

// Stopped and continued at random instants, nobody is taken for dead, and nothing
// is lost.
func TestStopStorm(t *testing.T) {
	needStop(t)
	stops := 200
	if testing.Short() {
		stops = 40
	}
	rnd := stormRand(t)
	st := newStore(t)
	keep, tally := stormKeeper(st)
	procs := st.startN(workers)
	var calls []*pending
	for i, p := range procs {
		calls = append(calls, blow(p, i, rnd))
	}
	for range stops {
		p := procs[rnd.IntN(workers)]
		p.stop()
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
		p.cont()
		time.Sleep(time.Duration(rnd.IntN(1000)) * time.Microsecond)
	}
	for _, p := range procs {
		p.do(request{Op: "go"})
	}
	for i, c := range calls {
		c.must()
		if n := procs[i].do(request{Op: "ping"}); n.Error != nil {
			t.Error(n.Error)
		}
	}
	afterTheStorm(t, st, keep, tally, st.start(), 0)
	if keep.lock(); keep.abandoned() {
		t.Error("a stopped owner was taken for dead")
	}
	keep.unlock()
}
