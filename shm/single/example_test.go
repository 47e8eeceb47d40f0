package single_test

import (
	"context"
	"errors"
	"fmt"

	"qshm/shm/single"
)

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// A second start of a program hands its arguments to the instance that is running.
func Example() {
	app, err := single.Acquire("editor")
	check(err)
	defer app.Close()

	sent := make(chan error)
	go func() { // another process, usually
		_, err := single.Acquire("editor")
		if errors.Is(err, single.ErrRunning) {
			err = single.Send(context.Background(), "editor", []byte("open b.txt"))
		}
		sent <- err
	}()

	for message := range app.Messages(context.Background()) {
		fmt.Printf("%s\n", message)
		break
	}
	check(<-sent)
	// Output: open b.txt
}

// The key is free again when the instance closes, or when its process ends in any way.
func ExampleAcquire() {
	app, err := single.Acquire("player")
	check(err)
	_, err = single.Acquire("player")
	fmt.Println(errors.Is(err, single.ErrRunning))

	check(app.Close())
	app, err = single.Acquire("player")
	check(err)
	check(app.Close())
	// Output: true
}

func ExampleSend() {
	err := single.Send(context.Background(), "nobody", []byte("hello"))
	fmt.Println(errors.Is(err, single.ErrNotRunning))
	// Output: true
}

// A Sender sends many messages without attaching for each.
func ExampleSender() {
	ctx := context.Background()
	app, err := single.Acquire("log")
	check(err)
	defer app.Close()

	sent := make(chan error)
	go func() { // another process, usually
		s := single.NewSender("log")
		err := s.Send(ctx, []byte("one"))
		if err == nil {
			err = s.Send(ctx, []byte("two"))
		}
		sent <- errors.Join(err, s.Close())
	}()

	n := 0
	for message := range app.Messages(ctx) {
		fmt.Printf("%s\n", message)
		if n++; n == 2 {
			break
		}
	}
	check(<-sent)
	// Output:
	// one
	// two
}
