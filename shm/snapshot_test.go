package shm

import (
	"bytes"
	"encoding/binary"
	"io"
	"sync"
	"testing"
	"time"

	"qshm/shm/internal/spin"
)

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
			t.Errorf("%d bytes at %d: %q, %v, want %q, %v", c.n, c.off, p[:n], err, c.want, c.err)
		}
	}
	section := io.NewSectionReader(seg, 4, 100)
	if b, err := io.ReadAll(section); string(b) != "shot" || err != nil {
		t.Errorf("as an io.ReaderAt: %q, %v", b, err)
	}
}

// The writer writes one number at the beginning, in the middle and at the end, which
// takes less time than a copy. A copy that holds two numbers was not there at one
// moment.
func TestSnapshotsAreNeverTorn(t *testing.T) {
	store(t)
	const words = 8192
	written := []int{0, words / 2, words - 1}
	seg, writer := create(t, key, 8*words), attach(t, key)
	reader := attach(t, key, ReadOnly())
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
				for _, i := range written {
					binary.NativeEndian.PutUint64(data[8*i:], n)
					if n%16 == 0 {
						spin.Pause()
					}
				}
				return nil
			})
			for range n % 50 {
				spin.Pause()
			}
		}
	})
	duration := 500 * time.Millisecond // so long that some copies are interrupted, on a busy machine too
	if testing.Short() {
		duration /= 5
	}
	for i := range 4 {
		readers.Go(func() {
			dst := make([]byte, 8*words)
			last, lastVersion := uint64(0), uint32(0)
			for end := time.Now().Add(duration); time.Now().Before(end); {
				var err error
				version := lastVersion
				switch i {
				case 0:
					_, err = reader.ReadAt(dst, 0)
				case 1:
					var v [words]uint64
					v, err = Load[[words]uint64](seg, 0)
					for _, w := range written {
						binary.NativeEndian.PutUint64(dst[8*w:], v[w])
					}
				default:
					_, version, err = seg.Snapshot(dst)
				}
				first := binary.NativeEndian.Uint64(dst)
				if err != nil || first < last || version < lastVersion {
					t.Errorf("%v; %d after %d, version %d after %d", err, first, last, version, lastVersion)
					return
				}
				if i > 1 && uint32(first) != version {
					t.Errorf("%d, but the version is %d", first, version)
					return
				}
				last, lastVersion = first, version
				for _, w := range written {
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

func TestReadingAbandonedDataIsErrAbandoned(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	reader := attach(t, key, ReadOnly())
	runThenKill(t, "lock and die", key)
	dst := make([]byte, 100)
	for range 2 {
		n, _, err := reader.Snapshot(dst)
		wantError(t, err, "snapshot", key, ErrAbandoned)
		if n != 100 || string(dst[:12]) != "half-written" {
			t.Errorf("Snapshot: %d bytes, %q, want the data as they are", n, dst[:12])
		}
		_, err = seg.ReadAt(dst, 0)
		wantError(t, err, "read", key, ErrAbandoned)
		v, err := Load[[4]byte](reader, 0)
		wantError(t, err, "load", key, ErrAbandoned)
		if string(v[:]) != "half" {
			t.Errorf("Load: %q, want the data as they are", v)
		}
	}
	seg.Update(nothing)
	if _, _, err := reader.Snapshot(dst); err != nil {
		t.Errorf("after the repair: %v", err)
	}
}

func TestSnapshotAfterAPanicIsErrAbandoned(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	panics(func() { seg.Update(func([]byte) error { panic("half-way") }) })
	_, _, err := seg.Snapshot(make([]byte, 8))
	wantError(t, err, "snapshot", key, ErrAbandoned)
}

// Each Store writes both halves of a value with one number.
func TestLoadsAreNeverTorn(t *testing.T) {
	store(t)
	seg, writer := create(t, key, 64), attach(t, key)
	const off = 5 // not aligned
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for n := uint64(1); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := Store(writer, off, [3]uint64{n, n, n}); err != nil {
				t.Error(err)
				return
			}
			spin.Pause()
		}
	})
	rounds := 20000
	if testing.Short() {
		rounds = 2000
	}
	for range rounds {
		v, err := Load[[3]uint64](seg, off)
		if err != nil || v[0] != v[1] || v[1] != v[2] {
			t.Errorf("%v, %v", v, err)
			break
		}
	}
	close(stop)
	wg.Wait()
}

func TestStoreThenLoad(t *testing.T) {
	store(t)
	seg := create(t, key, 64)
	want := point{3, -4}
	if err := Store(seg, 7, want); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*Segment{seg, attach(t, key, ReadOnly())} {
		if got, err := Load[point](s, 7); got != want || err != nil {
			t.Errorf("%v, %v, want %v", got, err, want)
		}
	}
	for i, b := range seg.Data() {
		if (i < 7 || i >= 15) && b != 0 {
			t.Errorf("byte %d is %d, want 0", i, b)
		}
	}
}

// Processors that move loads copy by words, and others by bytes.
func TestCopySharedCopiesAtAnyAlignment(t *testing.T) {
	store(t)
	src := create(t, key, 64).Data()
	for i := range src {
		src[i] = byte(i + 1)
	}
	for begin := range 9 {
		for end := begin; end <= len(src); end++ {
			dst := make([]byte, end-begin)
			if copyShared(dst, src[begin:end]); !bytes.Equal(dst, src[begin:end]) {
				t.Fatalf("copied %v, want %v", dst, src[begin:end])
			}
		}
	}
}
