package shm

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestWhatMovesTheVersion(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	reader := attach(t, key, ReadOnly)
	nothing := func([]byte) error { return nil }
	own := errors.New("own")
	for _, c := range []struct {
		what  string
		call  func()
		moves uint32
	}{
		{"unlock", func() { lock(t, seg); unlock(t, seg) }, 1},
		{"unlock after TryLock", func() { seg.TryLock(); unlock(t, seg) }, 1},
		{"update", func() { seg.Update(nothing) }, 1},
		{"update that fails", func() { seg.Update(func([]byte) error { return own }) }, 1},
		{"write", func() { seg.WriteAt([]byte("x"), 0) }, 1},
		{"view", func() { seg.View(nothing) }, 0},
		{"view of a reader", func() { reader.View(nothing) }, 0},
		{"unlock of a reader", func() { lock(t, reader); unlock(t, reader) }, 0},
		{"read", func() { seg.ReadAt(make([]byte, 8), 0) }, 0},
		{"snapshot", func() { seg.Snapshot(make([]byte, 8)) }, 0},
		{"lock alone", func() { lock(t, reader) }, 0},
		{"attach", func() { attach(t, key) }, 0},
	} {
		before := seg.Version()
		c.call()
		if moved := seg.Version() - before; moved != c.moves || reader.Version() != seg.Version() {
			t.Errorf("%s has moved the version by %d, want %d", c.what, moved, c.moves)
		}
	}
}

func TestWaitReturnsWhatHasMovedAlready(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	seg.WriteAt([]byte("x"), 0)
	if v, err := seg.Wait(context.Background(), 0); v != 1 || err != nil {
		t.Errorf("%d, %v", v, err)
	}
}

func TestWaitIsWokenByAChange(t *testing.T) {
	store(t)
	seg, writer := create(t, key, 8), attach(t, key)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for i, ctx := range []context.Context{context.Background(), ctx} {
		result := make(chan uint32)
		for range 3 {
			go func() {
				v, err := seg.Wait(ctx, uint32(i))
				if err != nil {
					t.Error(err)
				}
				result <- v
			}()
		}
		listening(t, seg)
		writer.View(func([]byte) error { return nil })
		select {
		case <-result:
			t.Error("woken by a View")
		default:
		}
		writer.WriteAt([]byte("x"), 0)
		for range 3 {
			if v := <-result; v != uint32(i+1) {
				t.Errorf("version %d", v)
			}
		}
	}
}

func TestWaitIsWokenByADeath(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	runThenKill(t, "lock and die", key)
	result := make(chan error)
	go func() {
		_, err := seg.Wait(context.Background(), 0)
		result <- err
	}()
	listening(t, seg)
	lock(t, seg) // finds it out
	if err := <-result; err != nil {
		t.Error(err)
	}
}

func TestWaitWithAnEndedContextReturnsAtOnce(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	v, err := seg.Wait(ctx, 7)
	if wantError(t, err, "wait", key, context.Canceled); v != 7 {
		t.Errorf("version %d", v)
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error)
	for range 3 {
		go func() {
			_, err := seg.Wait(ctx, 0)
			result <- err
		}()
	}
	listening(t, seg)
	cancel()
	for range 3 {
		wantError(t, <-result, "wait", key, context.Canceled)
	}
	short, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	_, err := seg.Wait(short, 0)
	wantError(t, err, "wait", key, context.DeadlineExceeded)
}

func TestNoChangeIsMissed(t *testing.T) {
	store(t)
	seg, writer := create(t, key, 8), attach(t, key)
	const n = 2000
	var seen atomic.Uint32
	done := make(chan error)
	go func() {
		for v := uint32(0); v < n; {
			next, err := seg.Wait(context.Background(), v)
			if err != nil {
				done <- err
				return
			}
			v = next
			seen.Store(v)
		}
		done <- nil
	}()
	for i := range uint32(n) {
		for seen.Load() < i { // it has to see this one before the next comes
		}
		writer.Update(func([]byte) error { return nil })
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestSnapshotCopiesWhatFits(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	seg.WriteAt([]byte("snapshot"), 0)
	for _, n := range []int{0, 1, 7, 8, 9, 100} {
		dst := bytes.Repeat([]byte("."), n)
		got, v, err := seg.Snapshot(dst)
		want := min(n, 8)
		if got != want || v != 1 || err != nil || string(dst[:want]) != "snapshot"[:want] || len(bytes.Trim(dst[want:], ".")) != 0 {
			t.Errorf("into %d bytes: %d, version %d, %v, %q", n, got, v, err, dst)
		}
	}
}

func TestReadAtReads(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	seg.WriteAt([]byte("snapshot"), 0)
	for _, c := range []struct {
		n    int
		off  int64
		want string
		err  error
	}{{8, 0, "snapshot", nil}, {4, 4, "shot", nil}, {5, 4, "shot", io.EOF}, {1, 8, "", io.EOF}, {1, 1 << 40, "", io.EOF}, {3, 1, "nap", nil}} {
		p := make([]byte, c.n)
		n, err := seg.ReadAt(p, c.off)
		if string(p[:n]) != c.want || err != c.err {
			t.Errorf("%d at %d: %q, %v", c.n, c.off, p[:n], err)
		}
	}
	section := io.NewSectionReader(seg, 4, 100)
	if b, err := io.ReadAll(section); string(b) != "shot" || err != nil {
		t.Errorf("as an io.ReaderAt: %q, %v", b, err)
	}
}

// Each writer fills the memory with one number, by turns fast and slow: a copy
// that holds two was not there at one moment.
func TestSnapshotsAreNeverTorn(t *testing.T) {
	store(t)
	const words = 512
	seg, writer := create(t, key, 8*words), attach(t, key)
	reader := attach(t, key, ReadOnly)
	stop := make(chan struct{})
	var writers, readers sync.WaitGroup
	writers.Go(func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			writer.Update(func(data []byte) error {
				for i := range words {
					binary.NativeEndian.PutUint64(data[8*i:], n)
					if n%16 == 0 && i%128 == 0 {
						pause()
					}
				}
				return nil
			})
			if n%3 == 0 {
				pause()
			}
		}
	})
	for i := range 3 {
		readers.Go(func() {
			dst := make([]byte, 8*words)
			last, lastVersion := uint64(0), uint32(0)
			for range 3000 {
				var err error
				version := lastVersion
				if i == 0 {
					_, err = reader.ReadAt(dst, 0)
				} else {
					_, version, err = seg.Snapshot(dst)
				}
				first := binary.NativeEndian.Uint64(dst)
				if err != nil || first < last || version < lastVersion {
					t.Errorf("%v; %d after %d, version %d after %d", err, first, last, version, lastVersion)
					return
				}
				if i > 0 && uint32(first) != version {
					t.Errorf("%d is what version %d has", first, version)
					return
				}
				last, lastVersion = first, version
				for w := range words {
					if n := binary.NativeEndian.Uint64(dst[8*w:]); n != first {
						t.Errorf("torn: %d and %d", first, n)
						return
					}
				}
			}
		})
	}
	readers.Wait()
	close(stop)
	writers.Wait()
}

func TestSnapshotOfAbandonedData(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly)
	runThenKill(t, "lock and die", key)
	dst := make([]byte, 100)
	for range 2 {
		n, _, err := reader.Snapshot(dst)
		wantError(t, err, "snapshot", key, ErrAbandoned)
		if n != 100 || string(dst[:12]) != "half-written" {
			t.Errorf("%d, %q", n, dst[:12])
		}
		_, err = seg.ReadAt(dst, 0)
		wantError(t, err, "read", key, ErrAbandoned)
	}
	seg.Update(func([]byte) error { return nil })
	if _, _, err := reader.Snapshot(dst); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestSnapshotAfterAPanicIsAbandoned(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	panics(func() { seg.Update(func([]byte) error { panic("half-way") }) })
	_, _, err := seg.Snapshot(make([]byte, 8))
	wantError(t, err, "snapshot", key, ErrAbandoned)
}

func TestChangesYieldsEachVersion(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var got []uint32
	for v, err := range seg.Changes(ctx) {
		if err != nil {
			wantError(t, err, "wait", key, context.Canceled)
			break
		}
		if got = append(got, v); len(got) == 4 {
			cancel()
			continue
		}
		seg.WriteAt([]byte("x"), 0)
	}
	if len(got) != 4 || got[0] != 0 || got[3] != 3 {
		t.Errorf("%v", got)
	}
}
