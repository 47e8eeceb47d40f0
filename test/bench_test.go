package test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"

	"qshm/shm"
	"qshm/shm/single"
)

// Benchmarks for daily use: go test -bench . -run '^$' ./test; test/compare.sh shows the
// effect of a change. test/peers compares with other libraries.

// benchStore returns a store in memory, where the system has /dev/shm.
func benchStore(b *testing.B) shm.Option {
	dir, err := os.MkdirTemp("/dev/shm", "qshm-bench-")
	if err != nil {
		dir = b.TempDir()
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	return shm.Dir(dir)
}

func benchSegment(b *testing.B, size int) (*shm.Segment, shm.Option) {
	store := benchStore(b)
	seg, err := shm.Create("bench", size, store)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { seg.Close() })
	return seg, store
}

func BenchmarkLockUnlock(b *testing.B) {
	b.Run("qshm", func(b *testing.B) {
		seg, _ := benchSegment(b, 64)
		b.ReportAllocs()
		for b.Loop() {
			seg.Lock()
			seg.Unlock()
		}
	})
	b.Run("gofrs", func(b *testing.B) {
		lock := flock.New(filepath.Join(b.TempDir(), "lock"))
		for b.Loop() {
			lock.Lock()
			lock.Unlock()
		}
	})
	benchSystemLocks(b)
}

func BenchmarkTwoContend(b *testing.B) {
	seg, store := benchSegment(b, 64)
	other, err := shm.Attach("bench", store)
	if err != nil {
		b.Fatal(err)
	}
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				other.Lock()
				other.Unlock()
			}
		}
	}()
	for b.Loop() {
		seg.Lock()
		seg.Unlock()
	}
	close(stop)
	<-stopped
	other.Close()
}

func BenchmarkUpdate(b *testing.B) {
	seg, _ := benchSegment(b, 64)
	b.ReportAllocs()
	for b.Loop() {
		seg.Update(func(data []byte) error { data[0]++; return nil })
	}
}

// BenchmarkAttachDetachAgain attaches in a process that is attached already.
func BenchmarkAttachDetachAgain(b *testing.B) {
	_, store := benchSegment(b, 4096)
	b.ReportAllocs()
	for b.Loop() {
		seg, err := shm.Attach("bench", store)
		if err != nil {
			b.Fatal(err)
		}
		seg.Detach()
	}
}

func BenchmarkSnapshot(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg, _ := benchSegment(b, size)
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				seg.Snapshot(buf)
			}
		})
	}
}

func BenchmarkWriteAt(b *testing.B) {
	for _, size := range []int{64, 4 << 10, 1 << 20, 64 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			seg, _ := benchSegment(b, size)
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				seg.WriteAt(buf, 0)
			}
		})
	}
}

func BenchmarkSingleSend(b *testing.B) {
	store := benchStore(b)
	app, err := single.Acquire("bench", store)
	if err != nil {
		b.Fatal(err)
	}
	taken := make(chan struct{})
	go func() {
		defer close(taken)
		for range app.Messages(context.Background()) {
		}
	}()
	message := make([]byte, 100)
	for b.Loop() {
		if err := single.Send(context.Background(), "bench", message, store); err != nil {
			b.Fatal(err)
		}
	}
	app.Close()
	<-taken
}
