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

// Storms: workers make all calls of the library in random order, and are killed or stopped
// at random instants. The workers of storm_stream_test.go use a stream.

var (
	stormKills = flag.Int("storm.kills", 0, "how many processes each storm kills; 10000 for a long run")
	stormSeed  = flag.Uint64("storm.seed", 0, "the seed of the random numbers of the storms; 0: a random one")
)

const (
	stormKey     = "storm" // the keeper is attached to it until the end
	stormSize    = 256
	maxStormSize = 20_000  // the largest size for Grow
	tallyKey     = "tally" // how many records each worker has written
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

// recorded returns the number of the record, and an error if the record is torn or missing:
// Init writes one before any worker can attach. A snapshot can be shorter than the record,
// if the segment has grown meanwhile.
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
		return n, fmt.Errorf("a torn record: %d, %d, length %d of %d, % x…", n, ^m, length, len(data), data[recordHeader:min(len(data), 300)])
	}
	return n, nil
}

// add writes the next record. The caller holds the lock. A torn record is an error, unless
// the last writer died while it held the lock.
func add(s *shm.Segment, data []byte, tally *atomic.Uint64) error {
	n, err := recorded(data)
	if err != nil && !s.Abandoned() {
		return fmt.Errorf("Abandoned is false: %w", err)
	}
	if length := binary.NativeEndian.Uint64(data[16:]); length > uint64(len(data)) {
		return fmt.Errorf("the record has %d bytes, the segment has %d", length, len(data))
	}
	record(n+1, data)
	if tally != nil {
		tally.Add(1)
	}
	return nil
}

func init() {
	// record writes a record of the number Off.
	extra["record"] = func(c *child, _ context.Context, r request, _ *answer) error {
		return c.segment(r.Handle).Update(func(data []byte) error { record(uint64(r.Off), data); return nil })
	}
	// recorded returns the number of the record, and whether Abandoned is true. If it is, the
	// record may be torn, and recorded writes it again.
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
	// storm makes random calls as worker N until the gate opens.
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
	keep  *shm.Segment // attached to the segment that the keeper keeps
	seg   *shm.Segment // attached to one that workers create and destroy, or nil
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

// initialise is what Init does. It takes some time, so that some processes die in it.
func (w *stormWorker) initialise(data []byte) error {
	record(0, data)
	if w.rand.IntN(4) == 0 {
		binary.NativeEndian.PutUint64(data, 1) // torn
		time.Sleep(time.Duration(w.rand.IntN(100)) * time.Microsecond)
		record(0, data)
	}
	return nil
}

// step makes one call, and returns an error if the call reports one that it must not.
func (w *stormWorker) step() (err error) {
	k := fmt.Sprint("shared ", w.rand.IntN(2))
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
		return except(err, shm.ErrExist)
	case 4:
		if w.seg == nil {
			w.seg, err = shm.Attach(k, options...)
		}
		return except(err, shm.ErrNotExist)
	case 5, 6:
		return w.detach()
	case 7:
		return except(shm.Remove(k), shm.ErrNotExist)
	case 8:
		_, err = shm.Sweep()
		return err
	case 9:
		_, err = shm.List()
		return err
	case 10:
		_, err = shm.Stat(k)
		return except(err, shm.ErrNotExist)
	case 11:
		s.Wait(ctx, s.Version())
		return nil
	case 12, 13:
		n, _, err := s.Snapshot(buf)
		if err == nil {
			_, err = recorded(buf[:n])
		}
		return except(err, shm.ErrAbandoned)
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
		return except(err, single.ErrRunning)
	case 17:
		err := s.Grow(stormSize + w.rand.IntN(maxStormSize-stormSize))
		return except(err, shm.ErrNotExist, shm.ErrReadOnly) // the segment was removed; the attachment is read-only
	case 18:
		pair, err := shm.Load[[2]uint64](s, 0)
		if err == nil && pair[0] != ^pair[1] {
			err = fmt.Errorf("Load returns a torn pair: %x", pair)
		}
		return except(err, shm.ErrAbandoned)
	case 19:
		even := func(data []byte) bool { return data[0]%2 == 0 }
		return except(s.UpdateWhen(ctx, even, func(data []byte) error { return add(s, data, tally) }), context.DeadlineExceeded, shm.ErrReadOnly)
	default:
		return except(s.Update(func(data []byte) error { return add(s, data, tally) }), shm.ErrReadOnly)
	}
	if err != nil {
		return except(err, context.DeadlineExceeded)
	}
	if !s.ReadOnly() {
		err = add(s, s.Data(), tally)
	} else if _, torn := recorded(s.Data()); torn != nil && !s.Abandoned() {
		err = torn
	}
	return errors.Join(err, s.Unlock())
}

// except returns err, or nil if err is one of the expected errors.
func except(err error, expected ...error) error {
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

// stormKeeper starts a process that stays attached to the two segments that no worker
// destroys.
func stormKeeper(st *store) (keep, tally *attachment) {
	keeper := st.start()
	keep, tally = keeper.create(stormKey, stormSize), keeper.create(tallyKey, 8*workers)
	keep.do(request{Op: "record"})
	return keep, tally
}

// startStorm starts a worker.
func startStorm(p *proc, worker int, rnd *rand.Rand) *pending {
	return p.begin(request{Op: "storm", N: worker, Off: int64(rnd.Uint32())})
}

// killsOfStorm returns how many processes a storm kills.
func killsOfStorm() int {
	kills := *stormKills
	if kills == 0 {
		kills = 300
	}
	if testing.Short() {
		kills = min(kills, 40)
	}
	return kills
}

// killAll kills the processes in random order, at random instants. Their calls must not
// have returned by themselves.
func killAll(t *testing.T, rnd *rand.Rand, procs []*proc, calls []*pending) {
	t.Helper()
	for _, i := range rnd.Perm(len(procs)) {
		time.Sleep(time.Duration(rnd.IntN(4000)) * time.Microsecond)
		procs[i].kill()
		if _, err := calls[i].outcome(); !errors.Is(err, errEnded) {
			t.Errorf("worker %d returned before it was killed: %v", i, err)
		}
	}
}

// After each round, all is as if the workers had detached.
func TestCrashStorm(t *testing.T) {
	rnd := stormRand(t)
	st := newStore(t)
	keep, tally := stormKeeper(st)
	observer := st.start()
	for killed := 0; killed < killsOfStorm() && !t.Failed(); {
		procs := st.startN(workers)
		var calls []*pending
		for i, p := range procs {
			calls = append(calls, startStorm(p, i, rnd))
		}
		killAll(t, rnd, procs, calls)
		killed += len(procs)
		checkAfterStorm(t, st, keep, tally, observer, killed)
	}
}

// checkAfterStorm checks that all is as if the workers, which have all ended, had detached.
func checkAfterStorm(t *testing.T, st *store, keep, tally *attachment, observer *proc, killed int) {
	t.Helper()
	wantPIDs(t, observer.stat(stormKey), keep.p)
	n := binary.NativeEndian.Uint64(keep.do(request{Op: "recorded"}).Data)
	var done uint64
	for i := range workers {
		done += binary.NativeEndian.Uint64([]byte(tally.peek(8*int64(i), 8)))
	}
	// A process may have died between writing its record and counting it.
	if n < done || n > done+uint64(killed) {
		t.Errorf("the last record is number %d, want %d, and at most %d more for the killed workers", n, done, killed)
	}
	// The next call works the first time, be it Create or Attach.
	for i, k := range []string{"shared 0", "shared 1"} {
		if (killed/workers+i)%2 == 0 {
			s := observer.create(k, 16)
			if got := s.peek(0, 16); got != string(make([]byte, 16)) {
				t.Errorf("new memory contains %q, want zeros", got)
			}
			if !s.tryLock() {
				t.Error("TryLock has not taken the lock of a new segment")
			}
			s.detach()
		} else {
			_, err := observer.tryAttach(k)
			wantError(t, err, shm.ErrNotExist)
		}
	}
	observer.sweep()
	st.wantFiles(stormKey, tallyKey)
}

// Workers that are stopped and continued never count as dead, and no record is lost.
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
		calls = append(calls, startStorm(p, i, rnd))
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
		procs[i].exit()
	}
	if keep.do(request{Op: "recorded"}).OK {
		t.Error("Abandoned is true: a stopped owner counted as dead")
	}
	checkAfterStorm(t, st, keep, tally, st.start(), 0)
}
