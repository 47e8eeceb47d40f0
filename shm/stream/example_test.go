package stream_test

import (
	"context"
	"errors"
	"fmt"
	"image"
	"io"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// The two streams of an example are usually those of two processes.
func Example() {
	ctx := context.Background()
	writer, err := stream.Open("greetings", 4096)
	check(err)
	reader, err := stream.Open("greetings", 4096)
	check(err)
	defer reader.Close()
	sub, err := reader.Subscribe()
	check(err)

	check(writer.Send(ctx, []byte("hello")))
	check(writer.Send(ctx, []byte("world")))
	check(writer.Close())

	for message, err := range sub.Messages(ctx) { // ends with the last writer's Close
		check(err)
		fmt.Printf("%s\n", message)
	}
	// Output:
	// hello
	// world
}

// A picture is drawn straight into the ring, and read where it is: no copy at either end.
func ExampleStream_Reserve() {
	const width, height = 64, 48
	ctx := context.Background()
	camera, err := stream.Open("camera", 1<<20)
	check(err)
	defer camera.Close()
	viewer, err := stream.Open("camera", 1<<20)
	check(err)
	defer viewer.Close()
	sub, err := viewer.Subscribe()
	check(err)

	r, err := camera.Reserve(ctx, 4*width*height)
	check(err)
	img := image.RGBA{Pix: r.Bytes(), Stride: 4 * width, Rect: image.Rect(0, 0, width, height)}
	clear(img.Pix) // what the memory holds is arbitrary
	img.Pix[img.PixOffset(10, 20)] = 0xff
	check(r.Commit())

	frame, err := sub.Next(ctx) // valid until the next call of Next or Close
	check(err)
	seen := image.RGBA{Pix: frame, Stride: 4 * width, Rect: image.Rect(0, 0, width, height)}
	fmt.Println(seen.Bounds(), seen.RGBAAt(10, 20).R)
	// Output: (0,0)-(64,48) 255
}

// Abort gives the room back; nothing is sent.
func ExampleReservation_Abort() {
	ctx := context.Background()
	s, err := stream.Open("drafts", 4096)
	check(err)
	defer s.Close()
	sub, err := s.Subscribe()
	check(err)

	r, err := s.Reserve(ctx, 100)
	check(err)
	copy(r.Bytes(), "not good enough")
	check(r.Abort())
	check(s.Send(ctx, []byte("better")))

	message, err := sub.Next(ctx)
	check(err)
	fmt.Printf("%s\n", message)
	// Output: better
}

// A reader with Latest gets the newest message, and holds up no writer.
func ExampleLatest() {
	ctx := context.Background()
	sensor, err := stream.Open("temperature", 4096)
	check(err)
	defer sensor.Close()
	display, err := stream.Open("temperature", 4096)
	check(err)
	defer display.Close()
	sub, err := display.Subscribe(stream.Latest())
	check(err)

	for degrees := range 1000 { // more than the ring holds
		check(sensor.Send(ctx, fmt.Appendf(nil, "%d degrees", degrees)))
	}
	message, err := sub.Next(ctx)
	check(err)
	fmt.Printf("%s, %d passed over\n", message, sub.Lost())
	// Output: 999 degrees, 999 passed over
}

// The workers of a group share the jobs. A worker is done with a job when it asks for
// the next one, or closes; if it dies before that, another worker gets the job, and
// Redelivered tells it.
func ExampleGroup() {
	ctx := context.Background()
	jobs, err := stream.Open("jobs", 4096)
	check(err)
	one, err := jobs.Subscribe(stream.Group("workers"))
	check(err)
	two, err := jobs.Subscribe(stream.Group("workers"))
	check(err)
	for _, job := range []string{"resize a.png", "resize b.png"} {
		check(jobs.Send(ctx, []byte(job)))
	}

	for _, worker := range []*stream.Subscription{one, two} { // one process each, usually
		job, err := worker.Next(ctx)
		check(err)
		fmt.Printf("%s, again: %t\n", job, worker.Redelivered())
		check(worker.Close()) // done
	}
	check(jobs.Close())
	// Output:
	// resize a.png, again: false
	// resize b.png, again: false
}

// A newcomer gets what the ring still holds.
func ExampleFromOldest() {
	ctx := context.Background()
	s, err := stream.Open("history", 4096)
	check(err)
	defer s.Close()
	check(s.Send(ctx, []byte("sent before anybody subscribed")))

	sub, err := s.Subscribe(stream.FromOldest())
	check(err)
	message, err := sub.Next(ctx)
	check(err)
	fmt.Printf("%s\n", message)
	// Output: sent before anybody subscribed
}

// The writer waits for a reader before it sends, and for the reader to have read
// everything before it ends.
func ExampleStream_Flush() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	writer, err := stream.Open("report", 4096)
	check(err)

	read := make(chan string)
	go func() { // another process, usually
		reader, err := stream.Open("report", 4096)
		check(err)
		defer reader.Close()
		sub, err := reader.Subscribe()
		check(err)
		message, err := sub.Next(ctx)
		check(err)
		text := string(message)
		check(sub.Close())
		read <- text
	}()

	check(writer.AwaitReader(ctx))
	check(writer.Send(ctx, []byte("all is well")))
	check(writer.Flush(ctx)) // blocks until the reader has read it
	fmt.Println(<-read)
	check(writer.Close())
	// Output: all is well
}

// While a reader is behind and the ring is full, Send waits; the error of a Send that
// gives up names the reader.
func ExampleStream_Send() {
	s, err := stream.Open("full", 64)
	check(err)
	defer s.Close()
	_, err = s.Subscribe() // and never reads
	check(err)

	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel()
	for err = nil; err == nil; {
		err = s.Send(ctx, []byte("one more"))
	}
	fmt.Println(errors.Is(err, context.DeadlineExceeded))
	fmt.Println(errors.Is(s.Send(ctx, make([]byte, s.MaxMessage()+1)), shm.ErrSize))
	// Output:
	// true
	// true
}

// Bytes instead of messages: anything that writes to an io.Writer, and anything that
// reads from an io.Reader.
func ExampleStream_Writer() {
	ctx := context.Background()
	s, err := stream.Open("bytes", 4096)
	check(err)
	defer s.Close()
	sub, err := s.Subscribe()
	check(err)
	r, w := sub.Reader(ctx), s.Writer(ctx)

	fmt.Fprint(w, "one ")
	fmt.Fprint(w, "text")
	check(w.Close())

	text, err := io.ReadAll(r)
	check(err)
	check(r.Close())
	fmt.Printf("%s\n", text)
	// Output: one text
}

// How full the ring is, and which reader is behind.
func ExampleStat() {
	s, err := stream.Open("watched", 4096)
	check(err)
	defer s.Close()
	_, err = s.Subscribe()
	check(err)
	check(s.Send(context.Background(), []byte("not read yet")))

	info, err := stream.Stat("watched")
	check(err)
	fmt.Println("capacity:", info.Capacity, "sent:", info.Sent, "writers:", info.Writers, "readers:", len(info.Readers))
	fmt.Println("a reader is behind:", info.Readers[0].Behind > 0)

	own, err := s.Info() // the same, of a stream that is open
	check(err)
	fmt.Println(s.Key(), own.Capacity == s.Capacity())
	fmt.Println("it is this process:", own.Readers[0].ID == s.ID())
	// Output:
	// capacity: 4096 sent: 1 writers: 1 readers: 1
	// a reader is behind: true
	// watched true
	// it is this process: true
}
