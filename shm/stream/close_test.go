package stream_test

import (
	"encoding/binary"
	"io"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

// Close, Abort and the like, while other calls are at work.

// ringWords attaches to the stream of a test as another program would.
func ringWords(t testing.TB, dir string) []byte {
	t.Helper()
	seg, err := shm.Attach("s", shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { seg.Close() })
	return seg.Data()
}

const (
	ringOff = 12 << 10
	tailOff = 64
)

// A subscription that is closed while Next waits for the lock leaves the lock free.
func TestCloseWhileNextWaitsForTheLock(t *testing.T) {
	dir := t.TempDir()
	w := open(t, dir, 4096)
	sub := subscribe(t, w, stream.Latest())
	send(t, w, "x")
	binary.NativeEndian.PutUint64(ringWords(t, dir)[ringOff:], 1<<31) // Next finds no message, and looks with the lock held
	r, err := w.Reserve(ctx, 8)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() {
		_, err := sub.Next(ctx)
		done <- err
	}()
	time.Sleep(20 * time.Millisecond) // so that Next waits; if it does not yet, the test passes
	sub.Close()
	r.Abort()
	wantError(t, "Next", <-done, stream.ErrClosed)
	seg, err := shm.Attach("s", shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	if ok, err := seg.TryLock(); !ok || err != nil {
		t.Errorf("the lock is taken: %v", err)
	}
}

// Abort after Commit does not touch the reservation of another goroutine.
func TestAbortAfterCommitLeavesOtherReservations(t *testing.T) {
	w := open(t, t.TempDir(), 4096)
	sub := subscribe(t, w)
	first, err := w.Reserve(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	copy(first.Bytes(), "one")
	if err := first.Commit(); err != nil {
		t.Fatal(err)
	}
	second, err := w.Reserve(ctx, 3)
	if err != nil {
		t.Fatal(err)
	}
	copy(second.Bytes(), "two")
	wantError(t, "Abort after Commit", first.Abort(), stream.ErrClosed)
	wantError(t, "Commit after Commit", first.Commit(), stream.ErrClosed)
	if err := second.Commit(); err != nil {
		t.Fatal(err)
	}
	want(t, sub, "one", "two")
}

// There is no io.EOF as long as there is a writer, also if it is not always the same.
func TestNoEOFWhileWritersTakeTurns(t *testing.T) {
	dir := t.TempDir()
	var all []*stream.Stream
	for range 3 {
		all = append(all, open(t, dir, 4096))
	}
	sub := subscribe(t, open(t, dir, 4096))
	const n = 20000
	errs := make(chan error, 1)
	send(t, all[0], "first")
	go func() {
		for i := range n {
			// The next one becomes a writer before this one closes.
			if err := all[(i+1)%3].Send(ctx, []byte("x")); err != nil {
				errs <- err
				return
			}
			if err := all[i%3].Writer(ctx).Close(); err != nil {
				errs <- err
				return
			}
		}
		errs <- all[n%3].Writer(ctx).Close()
	}()
	for got := 0; ; got++ {
		_, err := sub.Next(ctx)
		if err == io.EOF {
			if got != n+1 {
				t.Errorf("io.EOF after %d messages of %d", got, n+1)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	sub.Close() // if it was too early, the writers wait for nobody
	if err := <-errs; err != nil {
		t.Fatal(err)
	}
}
