package test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

// Writers, readers and members of groups of a stream, which are killed at random instants.

func init() {
	// stream storm writer sends parcels of the writer Off until the process is killed.
	extra["stream storm writer"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		s := ends.get(r.Handle).(*stream.Stream)
		rnd := rand.New(rand.NewPCG(uint64(r.Off), 1))
		for n := uint32(0); ; n++ {
			if err := s.Send(ctx, parcel(uint32(r.Off), n, rnd.IntN(200))); err != nil {
				return err
			}
		}
	}
	// stream storm reader reads until it is cancelled or killed, and checks that no message is
	// torn and that those of each writer come in order, each once. N is 1 if it reads from the
	// first message on, and 2 if it is a member of a group, which may get some out of order.
	extra["stream storm reader"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		next := map[uint32]uint32{}
		return eachParcel(ctx, sub, func(writer, n uint32) error {
			if want, ok := next[writer]; r.N != 2 && ok && n != want || !ok && n != 0 && a.N > 0 && r.N == 1 {
				return fmt.Errorf("message %d of writer %d, want %d", n, writer, want)
			}
			next[writer] = n + 1
			a.N++
			return nil
		})
	}
	// stream storm member is a member of a group. The segment marks has a counter for each
	// message, which the member increments when it gets the message.
	extra["stream storm member"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		sub := ends.get(r.Handle).(*stream.Subscription)
		seg, err := shm.Attach("marks")
		if err != nil {
			return err
		}
		marks := seg.Data()
		return eachParcel(ctx, sub, func(_, n uint32) error {
			at := int(n) % len(marks)
			if marks[at] != 0 && !sub.Redelivered() {
				return fmt.Errorf("message %d came again, and Redelivered is false", n)
			}
			marks[at]++
			if n%64 == 0 {
				time.Sleep(100 * time.Microsecond) // so that some die with a message
			}
			a.N++
			return nil
		})
	}
}

// eachParcel calls fn for each parcel that comes, until the context is cancelled.
func eachParcel(ctx context.Context, sub *stream.Subscription, fn func(writer, n uint32) error) error {
	for {
		m, err := sub.Next(ctx)
		switch {
		case errors.Is(err, stream.ErrWriterDied), errors.Is(err, io.EOF):
			time.Sleep(time.Millisecond) // until the next writer comes
			continue
		case errors.Is(err, context.Canceled):
			return nil
		case err != nil:
			return err
		}
		writer, n, err := opened(m)
		if err == nil {
			err = fn(writer, n)
		}
		if err != nil {
			return err
		}
	}
}

const streamStormMembers = "group g"

// One reader and one writer live on; other writers, readers and members are killed.
func TestStreamStorm(t *testing.T) {
	rnd := stormRand(t)
	st := newStore(t)
	keepers := st.startN(2)
	const capacity = 4096
	all := keepers[0].stream("k", capacity).subscribe("")
	reading := all.begin(request{Op: "stream storm reader", N: 1})
	for killed := 0; killed < killsOfStorm() && !t.Failed(); {
		procs := st.startN(4)
		var calls []*pending
		for i, p := range procs {
			s := p.stream("k", capacity)
			switch i {
			case 0, 1:
				calls = append(calls, s.begin(request{Op: "stream storm writer", Off: int64(rnd.Uint32())}))
			case 2:
				calls = append(calls, s.subscribe("").begin(request{Op: "stream storm reader"}))
			case 3:
				calls = append(calls, s.subscribe(streamStormMembers).begin(request{Op: "stream storm reader", N: 2}))
			}
		}
		killAll(t, rnd, procs, calls)
		killed += len(procs)
		if reading.done() {
			break
		}
		// The next writer and member go on, whatever the dead processes have left.
		w := keepers[1].stream("k", capacity)
		member := w.subscribe(streamStormMembers)
		sent := string(parcel(uint32(killed)+1<<31, 0, 10))
		sending := w.begin(request{Op: "stream send", Data: []byte(sent)}) // the ring may be full of what the group has not read
		for a := (answer{}); string(a.Data) != sent; {
			a = member.begin(request{Op: "stream next"}).must()
			if _, _, err := opened(a.Data); err != nil {
				t.Fatal(err)
			}
		}
		sending.must()
		w.close()
	}
	reading.cancel()
	if a := reading.must(); a.N == 0 {
		t.Error("the reader got no message")
	}
	all.close()
}

// Each job of one writer is given to a member, and to another one only if the first has
// died, while members are killed.
func TestStreamGroupStorm(t *testing.T) {
	rnd := stormRand(t)
	st := newStore(t)
	const jobs = 1 << 20
	keeper := st.start()
	marks := keeper.create("marks", jobs)
	w := keeper.stream("k", 4096)
	rounds := 60
	if testing.Short() {
		rounds = 10
	}
	// The group always has this member.
	steady := st.start()
	ss := steady.stream("k", 4096)
	member := ss.subscribe(streamStormMembers)
	working := member.begin(request{Op: "stream storm member"})
	sending := w.begin(request{Op: "stream storm writer", Off: 7})
	killed := 0
	for range rounds {
		procs := st.startN(3)
		var calls []*pending
		for _, p := range procs {
			calls = append(calls, p.stream("k", 4096).subscribe(streamStormMembers).begin(request{Op: "stream storm member"}))
		}
		killAll(t, rnd, procs, calls)
		killed += len(procs)
		if working.done() || t.Failed() {
			break
		}
		if marks.peek(jobs*3/4, 1) != "\x00" {
			break // before a counter is used twice
		}
	}
	sending.cancel()
	sending.outcome()
	w.begin(request{Op: "stream flush"}).must() // until all jobs are done
	working.cancel()
	if a := working.must(); a.N == 0 {
		t.Error("the member that lives on got no job")
	}
	data := marks.peek(0, jobs)
	sent, again := strings.IndexByte(data, 0), 0
	for i, n := range []byte(data) {
		if n == 0 && i < sent || n != 0 && i >= sent {
			t.Fatalf("job %d was given %d times, job %d never", i, n, sent)
		}
		again += int(max(n, 1) - 1)
	}
	if again > killed {
		t.Errorf("%d jobs were given again, want at most %d, one for each dead member", again, killed)
	}
	t.Logf("%d jobs, %d of them again, %d members killed", sent, again, killed)
	ss.close()
	w.close()
}
