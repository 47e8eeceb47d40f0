package shm_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
	"unsafe"

	"qshm/shm"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// Any process may start first: Open attaches, or creates if no live process has the
// segment.
func ExampleOpen() {
	first, created, err := shm.Open("greeting", 64)
	check(err)
	defer first.Close()
	fmt.Println("created:", created)

	second, created, err := shm.Open("greeting", 64) // another process, usually
	check(err)
	defer second.Close()
	fmt.Println("created:", created)

	check(first.Update(func(data []byte) error {
		copy(data, "hello")
		return nil
	}))
	check(second.View(func(data []byte) error {
		fmt.Printf("%s\n", data[:5])
		return nil
	}))
	// Output:
	// created: true
	// created: false
	// hello
}

// One process owns the segment; a second Create fails as long as it lives.
func ExampleCreate() {
	seg, err := shm.Create("frames", 1<<20)
	check(err)
	defer seg.Close()

	_, err = shm.Create("frames", 1<<20)
	fmt.Println(errors.Is(err, shm.ErrExist))
	// Output: true
}

func ExampleAttach() {
	_, err := shm.Attach("nothing")
	fmt.Println(errors.Is(err, shm.ErrNotExist))
	// Output: true
}

// Init runs before any other process can attach, so none sees the memory before it
// is initialised.
func ExampleInit() {
	seg, _, err := shm.Open("settings", 16, shm.Init(func(data []byte) error {
		binary.NativeEndian.PutUint32(data, 60) // frames a second
		return nil
	}))
	check(err)
	defer seg.Close()
	rate, err := shm.Load[uint32](seg, 0)
	check(err)
	fmt.Println(rate)
	// Output: 60
}

// A text that gets longer needs no new segment.
func ExampleSegment_Grow() {
	editor, err := shm.Create("text", 8)
	check(err)
	defer editor.Close()
	viewer, err := shm.Attach("text", shm.ReadOnly())
	check(err)
	defer viewer.Close()

	text := "a text that does not fit into eight bytes"
	check(editor.Grow(len(text)))
	check(editor.Update(func(data []byte) error {
		copy(data, text)
		return nil
	}))
	copied := make([]byte, viewer.Size())
	n, _, err := viewer.Snapshot(copied)
	check(err)
	fmt.Printf("%s\n", copied[:n])
	// Output: a text that does not fit into eight bytes
}

// Workers wait for jobs. If a worker is killed, no other one waits for it.
func ExampleSegment_UpdateWhen() {
	jobs, err := shm.Create("jobs", 8)
	check(err)
	defer jobs.Close()

	done := make(chan bool)
	go func() { // a worker: another process, usually
		worker, err := shm.Attach("jobs")
		check(err)
		defer worker.Close()
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		check(worker.UpdateWhen(ctx,
			func(data []byte) bool { return data[0] > 0 },
			func(data []byte) error { data[0]--; return nil }))
		done <- true
	}()

	check(jobs.Update(func(data []byte) error { data[0]++; return nil }))
	<-done
	left, err := shm.Load[uint8](jobs, 0)
	check(err)
	fmt.Println("jobs left:", left)
	// Output: jobs left: 0
}

// A reader sleeps until something has changed, and takes a consistent copy without
// stopping the writer.
func ExampleSegment_Changes() {
	writer, err := shm.Create("temperature", 8)
	check(err)
	defer writer.Close()
	reader, err := shm.Attach("temperature", shm.ReadOnly())
	check(err)
	defer reader.Close()

	check(shm.Store(writer, 0, 21.5))
	for _, err := range reader.Changes(context.Background()) {
		check(err)
		degrees, err := shm.Load[float64](reader, 0)
		check(err)
		fmt.Println(degrees)
		break
	}
	// Output: 21.5
}

func ExampleSegment_Wait() {
	seg, err := shm.Create("flag", 1)
	check(err)
	defer seg.Close()

	version := seg.Version() // no change from here on is missed
	go seg.Update(func(data []byte) error { data[0] = 1; return nil })
	_, err = seg.Wait(context.Background(), version)
	check(err)
	flag, err := shm.Load[uint8](seg, 0)
	check(err)
	fmt.Println(flag)
	// Output: 1
}

func ExampleSegment_Snapshot() {
	seg, err := shm.Create("state", 4)
	check(err)
	defer seg.Close()
	check(shm.Store(seg, 0, [4]byte{1, 2, 3, 4}))

	buf := make([]byte, seg.Size())
	n, version, err := seg.Snapshot(buf)
	check(err)
	fmt.Println(buf[:n], "version", version)
	// Output: [1 2 3 4] version 1
}

// A time-out, and which process holds the lock.
func ExampleSegment_LockContext() {
	seg, err := shm.Create("busy", 1)
	check(err)
	defer seg.Close()
	other, err := shm.Attach("busy")
	check(err)
	defer other.Close()
	check(other.Lock())

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	err = seg.LockContext(ctx)
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	// Output: true
}

func ExampleSegment_TryLock() {
	seg, err := shm.Create("try", 1)
	check(err)
	defer seg.Close()
	if ok, err := seg.TryLock(); err == nil && ok {
		defer seg.Unlock()
		fmt.Println("locked")
	}
	// Output: locked
}

// After a crash in the middle of an Update, the next owner repairs the data.
func ExampleSegment_Abandoned() {
	seg, err := shm.Create("ledger", 16)
	check(err)
	defer seg.Close()
	check(seg.Update(func(data []byte) error {
		if seg.Abandoned() {
			clear(data) // whatever it takes to make the data consistent again
		}
		data[0]++
		return nil
	}))
	fmt.Println(seg.Data()[0])
	// Output: 1
}

// A struct in shared memory: with the lock held, or by a consistent copy.
func ExampleValue() {
	type counters struct {
		Hits, Misses uint64
	}
	seg, err := shm.Create("counters", 16)
	check(err)
	defer seg.Close()

	c, err := shm.Value[counters](seg, 0)
	check(err)
	check(seg.Update(func([]byte) error {
		c.Hits++
		return nil
	}))
	copied, err := shm.Load[counters](seg, 0)
	check(err)
	fmt.Println(copied.Hits, copied.Misses)
	// Output: 1 0
}

func ExampleSlice() {
	seg, err := shm.Create("samples", 1024)
	check(err)
	defer seg.Close()
	samples, err := shm.Slice[float32](seg, 0, 256)
	check(err)
	check(seg.Update(func([]byte) error {
		for i := range samples {
			samples[i] = float32(i) / 2
		}
		return nil
	}))
	fmt.Println(len(samples), samples[3])
	// Output: 256 1.5
}

func ExampleStore() {
	seg, err := shm.Create("volume", 8)
	check(err)
	defer seg.Close()
	check(shm.Store(seg, 0, uint16(11)))
	volume, err := shm.Load[uint16](seg, 0)
	check(err)
	fmt.Println(volume)
	// Output: 11
}

// A picture is drawn straight into shared memory: one writer, any number of readers.
func Example_frames() {
	const width, height = 64, 48
	seg, err := shm.Create("picture", 4*width*height)
	check(err)
	defer seg.Close()
	viewer, err := shm.Attach("picture", shm.ReadOnly())
	check(err)
	defer viewer.Close()

	check(seg.Update(func(data []byte) error {
		img := image.RGBA{Pix: data, Stride: 4 * width, Rect: image.Rect(0, 0, width, height)}
		img.Pix[img.PixOffset(10, 20)] = 0xff // red
		return nil
	}))
	frame := image.NewRGBA(image.Rect(0, 0, width, height))
	_, version, err := viewer.Snapshot(frame.Pix)
	check(err)
	fmt.Println("frame", version, frame.RGBAAt(10, 20).R)
	// Output: frame 1 255
}

// What is there, and cleaning up. Segments of dead processes need no cleaning: the
// next Create or Attach destroys them.
func ExampleList() {
	seg, err := shm.Create("listed", 100)
	check(err)
	defer seg.Close()
	infos, err := shm.List()
	check(err)
	for _, info := range infos {
		fmt.Println(info.Key, info.Size, "bytes,", info.Attached, "attached,", info.Status)
	}
	check(shm.Remove("listed")) // its process keeps the memory until it detaches
	_, err = shm.Stat("listed")
	fmt.Println(errors.Is(err, shm.ErrNotExist))
	// Output:
	// listed 100 bytes, 1 attached, live
	// true
}

func ExampleSweep() {
	swept, err := shm.Sweep()
	check(err)
	fmt.Println(len(swept))
	// Output: 0
}

// Replaced tells that the former processes died, and whether one of them held the
// lock.
func ExampleSegment_Replaced() {
	seg, _, err := shm.Open("session", 64)
	check(err)
	defer seg.Close()
	if former, ok := seg.Replaced(); ok {
		fmt.Println("the last session crashed; in the middle of a write:", former.Abandoned)
	} else {
		fmt.Println("a clean start")
	}
	// Output: a clean start
}

func ExampleWithContext() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	seg, _, err := shm.Open("patient", 1, shm.WithContext(ctx))
	check(err)
	check(seg.Detach())
	// Output:
}

// A change by atomic operations takes no lock. Notify announces it without writing
// anything else: it moves the version, and wakes the processes that wait.
func ExampleSegment_Notify() {
	seg, err := shm.Create("hits", 8)
	check(err)
	defer seg.Close()
	hits, err := shm.Value[atomic.Uint64](seg, 0)
	check(err)

	version := seg.Version()
	go func() { // another process, usually
		hits.Add(1)
		check(seg.Notify())
	}()
	_, err = seg.Wait(context.Background(), version)
	check(err)
	fmt.Println(hits.Load())
	// Output: 1
}

// A process that owns a part of the memory leaves its ID there, so that others can
// find out whether it has died.
func ExampleSegment_Alive() {
	seg, err := shm.Create("parts", 8)
	check(err)
	defer seg.Close()
	worker, err := shm.Attach("parts") // another process, usually
	check(err)

	check(shm.Store(worker, 0, worker.ID()))
	owner, err := shm.Load[uint64](seg, 0)
	check(err)
	fmt.Println(seg.Alive(owner))
	check(worker.Detach()) // or its death
	fmt.Println(seg.Alive(owner))
	// Output:
	// true
	// false
}

// A Segment that the program loses without Detach stays attached until the process
// ends: the garbage collector does not detach it.
func ExampleSegment_Detach() {
	drop := func() {
		_, err := shm.Create("dropped", 64)
		check(err)
	}
	drop()
	_, err := shm.Create("dropped", 64)
	fmt.Println("still attached:", errors.Is(err, shm.ErrExist))
	check(shm.Remove("dropped")) // the key is free again; the memory is in use until the end

	seg, err := shm.Create("dropped", 64)
	check(err)
	check(seg.Detach())
	fmt.Println("attached:", seg.Attached(), "size:", seg.Size())
	fmt.Println("second Detach:", errors.Is(seg.Detach(), shm.ErrDetached))
	fmt.Println("Close, for defer:", seg.Close())
	// Output:
	// still attached: true
	// attached: false size: 0
	// second Detach: true
	// Close, for defer: <nil>
}

// The data begin on a page boundary, so every type is aligned at offset 0. At other
// offsets, Value and Slice check it; Load and Store take any offset.
func ExampleSegment_Data() {
	seg, err := shm.Create("aligned", 64)
	check(err)
	defer seg.Close()

	check(seg.Lock()) // the memory is shared: use it with the lock held
	data := seg.Data()
	fmt.Println("on a page boundary:", uintptr(unsafe.Pointer(&data[0]))%4096 == 0)
	data[0] = 7
	check(seg.Unlock())

	_, err = shm.Value[uint32](seg, 1)
	fmt.Println("misaligned:", errors.Is(err, shm.ErrType))
	_, err = shm.Load[uint32](seg, 1)
	fmt.Println("Load:", err)
	// Output:
	// on a page boundary: true
	// misaligned: true
	// Load: <nil>
}

func ExampleSegment_Unlock() {
	seg, err := shm.Create("guarded", 1)
	check(err)
	defer seg.Close()
	check(seg.Lock())
	seg.Data()[0]++
	check(seg.Unlock())
	fmt.Println("Unlock without Lock:", errors.Is(seg.Unlock(), shm.ErrNotLocked))
	// Output: Unlock without Lock: true
}

// A Segment is an io.ReaderAt and an io.WriterAt. Each call takes effect as a whole.
func ExampleSegment_ReadAt() {
	seg, err := shm.Create("file", 16)
	check(err)
	defer seg.Close()
	_, err = seg.WriteAt([]byte("hello"), 4)
	check(err)
	buf := make([]byte, 5)
	_, err = seg.ReadAt(buf, 4)
	check(err)
	fmt.Printf("%s\n", buf)
	// Output: hello
}

// The options of Create: a store that several users share, a file for a group, room
// for a thousand attachments, and memory that costs nothing until it is touched.
func ExamplePerm() {
	store := shm.Dir(filepath.Join(os.Getenv("QSHM_DIR"), "shared"))
	seg, err := shm.Create("team", 1<<20, store, shm.Perm(0o660), shm.MaxAttachments(1000), shm.Sparse())
	check(err)
	defer seg.Close()

	info, err := seg.Info()
	check(err)
	fmt.Println(info.Key == seg.Key(), info.MaxAttached, info.Status)
	_, err = shm.Attach("team")
	fmt.Println("in another store:", errors.Is(err, shm.ErrNotExist))
	// Output:
	// true 1000 live
	// in another store: true
}

func ExampleReadOnly() {
	seg, err := shm.Create("constants", 8)
	check(err)
	defer seg.Close()
	reader, err := shm.Attach("constants", shm.ReadOnly())
	check(err)
	defer reader.Close()
	fmt.Println(reader.ReadOnly(), errors.Is(shm.Store(reader, 0, 1.0), shm.ErrReadOnly))
	// Output: true true
}

// An error names the operation and the key, and says what to do. Kinds that io/fs
// knows match its errors too.
func ExampleError() {
	_, err := shm.Attach("missing")
	var e *shm.Error
	fmt.Println(errors.As(err, &e), e.Op, e.Key, errors.Is(err, fs.ErrNotExist))
	fmt.Println(e.Error() == err.Error(), errors.Is(e.Unwrap(), shm.ErrNotExist))
	// Output:
	// true attach missing true
	// true true
}

// Status tells what a segment is to a program that looks at it.
func ExampleStatus() {
	seg, err := shm.Create("status", 1)
	check(err)
	defer seg.Close()
	before, err := shm.Stat("status")
	check(err)
	check(shm.Remove("status"))
	after, err := seg.Info()
	check(err)
	fmt.Println(before.Status.String(), after.Status)
	// Output: live removed
}
