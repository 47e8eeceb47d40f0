package test

import (
	"context"
	"encoding/binary"
	"os"
	"slices"
	"strings"
	"testing"

	"qshm/shm"
	"qshm/shm/stream"
)

// Failures of other projects that no other test replays: docs/evidence.md names them.

func init() {
	// queue take takes N messages of the stream, and is not done with the last of them.
	extra["queue take"] = func(_ *child, ctx context.Context, r request, a *answer) error {
		s, err := stream.Open(string(r.Key), 4096)
		if err != nil {
			return err
		}
		sub, err := s.Subscribe(stream.Group("consumers"), stream.FromOldest())
		if err != nil {
			return err
		}
		for range r.N {
			m, err := sub.Next(ctx)
			if err != nil {
				return err
			}
			if sub.Redelivered() {
				a.Data = append(a.Data, "again: "...)
			}
			a.Data = append(append(a.Data, m...), '\n')
		}
		return nil
	}
	// queue send opens the stream, sends Data and keeps the stream open.
	extra["queue send"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		s, err := stream.Open(string(r.Key), 4096)
		if err != nil {
			return err
		}
		return s.Send(ctx, r.Data)
	}
	// notify moves the version without the lock.
	extra["notify"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		s, err := shm.Attach(string(r.Key))
		if err != nil {
			return err
		}
		defer s.Close()
		return s.Notify()
	}
}

// boost interprocess 200: a waiter that has died holds up nobody that notifies.
func TestEvidenceDeadWaiterDoesNotBlockTheNotifier(t *testing.T) {
	st := newStore(t)
	a, waiter, b := st.start(), st.start(), st.start()
	s := a.create("k", 64)
	w := waiter.attach("k")
	w.begin(request{Op: "wait", Version: w.version()})
	st.awaitWatcher("k")
	waiter.kill()

	before := s.version()
	a.do(request{Op: "notify", Key: key("k")})
	s.write(0, "x")
	if now := b.attach("k").version(); now != before+2 {
		t.Errorf("the version went from %d to %d, want two more", before, now)
	}
}

// boost interprocess 163: a consumer dies with a message in its hands; writers go on,
// and the next consumer gets that message.
func TestEvidenceQueueGoesOnAfterItsConsumerDied(t *testing.T) {
	st := newStore(t)
	producer, consumer, next := st.start(), st.start(), st.start()
	send := func(text string) {
		producer.do(request{Op: "queue send", Key: key("q"), Data: []byte(text)})
	}
	take := func(p *proc, n int) string {
		return string(p.do(request{Op: "queue take", Key: key("q"), N: n}).Data)
	}
	send("job")
	if got := take(consumer, 1); got != "job\n" {
		t.Fatalf("the consumer gets %q", got)
	}
	consumer.kill()
	send("another job")
	got := strings.Split(strings.TrimSpace(take(next, 2)), "\n")
	slices.Sort(got)
	if want := []string{"again: job", "another job"}; !slices.Equal(got, want) {
		t.Errorf("the next consumer gets %q, want %q", got, want)
	}
}

// A slot names the process number of a process that is alive, as a number of another
// container may, and yet counts as dead, because nobody holds its lock.
func TestEvidencePIDsSayNothing(t *testing.T) {
	st := newStore(t)
	a, b := st.start(), st.start()
	a.create("k", 64)
	b.attach("k")
	b.kill()
	file, err := os.OpenFile(st.path("k"), os.O_RDWR, 0)
	must(t, err)
	defer file.Close()
	const slots = 576
	var slot [8]byte
	_, err = file.ReadAt(slot[:], slots+8)
	must(t, err)
	word := binary.NativeEndian.Uint64(slot[:])
	if word == 0 {
		t.Fatal("the dead process has left nothing in its slot")
	}
	binary.NativeEndian.PutUint64(slot[:], word&^0xffffffff|uint64(os.Getpid()))
	_, err = file.WriteAt(slot[:], slots+8)
	must(t, err)
	if n := a.stat("k").Attached; n != 1 {
		t.Errorf("%d are attached, want 1", n)
	}
}

// cpython 82300: a process that used the segment detaches, exits or dies, and takes
// nothing away from the others.
func TestEvidenceOneProcessEndsAndTheOthersKeepTheMemory(t *testing.T) {
	st := newStore(t)
	a, b, c, d := st.start(), st.start(), st.start(), st.start()
	s := a.create("k", 64)
	s.write(0, "data")
	b.attach("k").detach()
	b.exit()
	d.attach("k")
	d.exit()
	c.attach("k")
	c.kill()
	if got := st.start().attach("k").read(0, 4); got != "data" {
		t.Errorf("a newcomer reads %q", got)
	}
}
