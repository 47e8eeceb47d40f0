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

// Workers, which make all calls of the library in random order, and are killed or
// stopped at random instants.

var (
	stormKills = flag.Int("storm.kills", 0, "how many processes TestCrashStorm kills; 10000 for a long run")
	stormSeed  = flag.Uint64("storm.seed", 0, "the seed of the random numbers of the storms; 0: a random one")
)

const (
	stormKey     = "storm" // the keeper stays attached to it throughout
	stormSize    = 256
	maxStormSize = 20_000  // Grow goes up to it
	tallyKey     = "tally" // how many updates each worker has done
	workers      = 4
)

// A record fills the segment: a number, its complement, the length of the record, and
// the number's lowest byte throughout. What Grow adds behind a record is zero. Only the
// number counts; the rest shows whether the record is torn.
const recordHeader = 24

func record(n uint64, data []byte) {
	binary.NativeEndian.PutUint64(data, n)
	binary.NativeEndian.PutUint64(data[16:], uint64(len(data)))
	for i := recordHeader; i < len(data); i++ {
		data[i] = byte(n)
	}
	binary.NativeEndian.PutUint64(data[8:], ^n)
}

// recorded returns the number of the record, and an error if the record is torn, or
// none is there: Init has made one before any worker could attach. A snapshot can be
// shorter than the record, if the segment has grown meanwhile.
func recorded(data []byte) (uint64, error) {
	n, m := binary.NativeEndian.Uint64(data), binary.NativeEndian.Uint64(data[8:])
	length := binary.NativeEndian.Uint64(data[16:])
	ok := n == ^m && length >= stormSize && length <= maxStormSize
	for i := recordHeader; i < len(data) && ok; i++ {
		want := byte(n)
		if uint64(i) >= length {
			want = 0
		}
		ok = data[i] == want
	}
	if !ok {
		return n, fmt.Errorf("torn: %d, %d, length %d of %d, % x…", n, ^m, length, len(data), data[recordHeader:min(len(data), 300)])
	}
	return n, nil
}

// add writes the next record. The caller holds the lock. If the last writer died while
// it held the lock, add goes on with the number that is there.
func add(s *shm.Segment, data []byte, tally *atomic.Uint64) error {
	n, err := recorded(data)
	if err != nil && !s.Abandoned() {
		return fmt.Errorf("and Abandoned is false: %w", err)
	}
	if length := binary.NativeEndian.Uint64(data[16:]); length > uint64(len(data)) {
		return fmt.Errorf("the record has %d bytes, and the segment %d", length, len(data))
	}
	record(n+1, data)
	if tally != nil {
		tally.Add(1)
	}
	return nil
}

func init() {
	extra["record"] = func(c *child, _ context.Context, r request, _ *answer) error {
		return c.segment(r.Handle).Update(func(data []byte) error { record(uint64(r.Off), data); return nil })
	}
	// recorded returns the number of the record, and whether Abandoned is true. If it is,
	// and the record is torn, recorded repairs the record.
	extra["recorded"] = func(c *child, _ context.Context, r request, a *answer) error {
		s := c.segment(r.Handle)
		return s.Update(func(data []byte) error {
			n, err := recorded(data)
			a.OK, a.Data = s.Abandoned(), binary.NativeEndian.AppendUint64(nil, n)
			if a.OK {
				record(n, data)
				return nil
			}
			return err
		})
	}
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
	keep  *shm.Segment // to the segment that the keeper stays attached to
	seg   *shm.Segment // to one that workers create, attach to and destroy
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

// initialise is what Init does in the storm. It takes its time, so that some processes
// die in it.
func (w *stormWorker) initialise(data []byte) error {
	record(0, data)
	if w.rand.IntN(4) == 0 {
		binary.NativeEndian.PutUint64(data, 1) // torn
		time.Sleep(time.Duration(w.rand.IntN(100)) * time.Microsecond)
		record(0, data)
	}
	return nil
}

// step makes one call. It returns an error that must not occur.
func (w *stormWorker) step() (err error) {
	k := fmt.Sprint("gust ", w.rand.IntN(2))
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(w.rand.IntN(2000))*time.Microsecond)
	defer cancel()
	op := w.rand.IntN(24)
	defer func() {
		if err != nil {
			err = fmt.Errorf("operation %d: %w", op, err)
		}
	}()
	s, tally := w.keep, w.tally
	if w.seg != nil && w.rand.IntN(2) == 0 {
		s, tally = w.seg, nil
	}
	options := []shm.Option{shm.Init(w.initialise)}
	if w.rand.IntN(4) == 0 {
		options = append(options, shm.ReadOnly())
	}
	buf := make([]byte, maxStormSize)
	switch op {
	case 0, 1, 2:
		if w.seg == nil {
			w.seg, _, err = shm.Open(k, stormSize, options...)
		}
		return err
	case 3:
		if w.seg == nil {
			w.seg, err = shm.Create(k, stormSize, options...)
		}
		return but(err, shm.ErrExist)
	case 4:
		if w.seg == nil {
			w.seg, err = shm.Attach(k, options...)
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
		s.Wait(ctx, s.Version())
		return nil
	case 12, 13:
		n, _, err := s.Snapshot(buf)
		if err == nil {
			_, err = recorded(buf[:n])
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
	case 17:
		err := s.Grow(stormSize + w.rand.IntN(maxStormSize-stormSize))
		return but(err, shm.ErrNotExist, shm.ErrReadOnly) // removed from its key, or attached so
	case 18:
		pair, err := shm.Load[[2]uint64](s, 0)
		if err == nil && pair[0] != ^pair[1] {
			err = fmt.Errorf("torn: %x", pair)
		}
		return but(err, shm.ErrAbandoned)
	case 19:
		even := func(data []byte) bool { return data[0]%2 == 0 }
		return but(s.UpdateWhen(ctx, even, func(data []byte) error { return add(s, data, tally) }), context.DeadlineExceeded, shm.ErrReadOnly)
	default:
		return but(s.Update(func(data []byte) error { return add(s, data, tally) }), shm.ErrReadOnly)
	}
	if err != nil {
		return but(err, context.DeadlineExceeded)
	}
	if !s.ReadOnly() {
		err = add(s, s.Data(), tally)
	} else if _, torn := recorded(s.Data()); torn != nil && !s.Abandoned() {
		err = torn
	}
	return errors.Join(err, s.Unlock())
}

// but returns err, or nil if err is one of the expected errors.
func but(err error, expected ...error) error {
	for _, e := range expected {
		if errors.Is(err, e) {
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

// stormKeeper starts the process that stays attached to the segments that the storm
// must not destroy.
func stormKeeper(st *store) (keep, tally *attachment) {
	keeper := st.start()
	keep, tally = keeper.create(stormKey, stormSize), keeper.create(tallyKey, 8*workers)
	keep.do(request{Op: "record"})
	return keep, tally
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
	observer := st.start()
	for killed := 0; killed < kills && !t.Failed(); {
		procs := st.startN(workers)
		var calls []*pending
		for i, p := range procs {
			calls = append(calls, blow(p, i, rnd))
		}
		for _, i := range rnd.Perm(workers) {
			time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
			procs[i].kill()
			killed++
			if _, err := calls[i].outcome(); !errors.Is(err, errEnded) {
				t.Errorf("worker: %v", err)
			}
		}
		afterTheStorm(t, st, keep, tally, observer, killed)
	}
}

// afterTheStorm checks that all is as if the workers, which have all died, had detached.
func afterTheStorm(t *testing.T, st *store, keep, tally *attachment, observer *proc, killed int) {
	t.Helper()
	wantPIDs(t, observer.stat(stormKey), keep.p)
	n := binary.NativeEndian.Uint64(keep.do(request{Op: "recorded"}).Data)
	var done uint64
	for i := range workers {
		done += binary.NativeEndian.Uint64([]byte(tally.peek(8*int64(i), 8)))
	}
	// A process may have died between its update and its tally.
	if n < done || n > done+uint64(killed) {
		t.Errorf("the counter is %d, the workers did %d updates, and %d died", n, done, killed)
	}
	// The next call works the first time, whichever it is.
	for i, k := range []string{"gust 0", "gust 1"} {
		if (killed/workers+i)%2 == 0 {
			s := observer.create(k, 16)
			if got := s.peek(0, 16); got != string(make([]byte, 16)) {
				t.Errorf("new memory contains %q", got)
			}
			if !s.tryLock() {
				t.Error("a new lock is taken")
			}
			s.detach()
		} else if _, err := observer.tryAttach(k); !errors.Is(err, shm.ErrNotExist) {
			t.Errorf("attach to a segment of dead processes: %v", err)
		}
	}
	observer.sweep()
	st.wantFiles(stormKey, tallyKey)
}

// Workers that are stopped and continued at random instants never count as dead, and no
// update is lost.
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
	if keep.do(request{Op: "recorded"}).OK {
		t.Error("a stopped owner counted as dead")
	}
	afterTheStorm(t, st, keep, tally, st.start(), 0)
}
