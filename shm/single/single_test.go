package single_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"

	"qshm/shm"
	"qshm/shm/single"
)

func TestSecondInstanceIsRefused(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := single.Acquire("app", dir); !errors.Is(err, single.ErrRunning) {
		t.Fatalf("second Acquire: %v, want ErrRunning", err)
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	if err := app.Close(); err != nil {
		t.Fatalf("second Close: %v", err)
	}
	next, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatalf("Acquire after Close: %v", err)
	}
	next.Close()
	if left, err := shm.List(dir); err != nil || len(left) != 0 {
		t.Fatalf("left in the store: %v, %v", left, err)
	}
}

func TestMessagesArriveInOrder(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	var want [][]byte
	for i, n := range []int{0, 1, 1000, 65472, 65473, 200_000, 0, 5} {
		want = append(want, bytes.Repeat([]byte{byte('a' + i)}, n))
	}
	sent := make(chan error, 1)
	go func() {
		for i, m := range want {
			if err := single.Send(context.Background(), "app", m, dir); err != nil {
				sent <- fmt.Errorf("message %d: %w", i, err)
				return
			}
		}
		sent <- nil
	}()
	var got [][]byte
	for m := range app.Messages(context.Background()) {
		if got = append(got, m); len(got) == len(want) {
			break
		}
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if !bytes.Equal(got[i], want[i]) {
			t.Errorf("message %d: %d bytes, want %d", i, len(got[i]), len(want[i]))
		}
	}
}

func TestSendWithoutAnInstanceIsErrNotRunning(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	if err := single.Send(context.Background(), "app", nil, dir); !errors.Is(err, single.ErrNotRunning) {
		t.Fatalf("Send: %v, want ErrNotRunning", err)
	}
}

func TestSendGivesUpWithItsContextAndTakesTheMessageBack(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan error)
	go func() { sent <- single.Send(ctx, "app", []byte("lost"), dir) }()
	for { // until the message is in the inbox
		if info, err := shm.Stat("single-inbox:app", dir); err == nil && info.Version > 0 {
			break
		}
	}
	cancel()
	if err := <-sent; !errors.Is(err, context.Canceled) {
		t.Fatalf("Send: %v, want context.Canceled", err)
	}
	go func() { sent <- single.Send(context.Background(), "app", []byte("kept"), dir) }()
	for m := range app.Messages(context.Background()) {
		if string(m) != "kept" {
			t.Fatalf("got %q, want the message that was not taken back", m)
		}
		break
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
}

func TestCloseEndsSendWithErrNotRunning(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	sent := make(chan error)
	go func() { sent <- single.Send(context.Background(), "app", []byte("late"), dir) }()
	for {
		if info, err := shm.Stat("single-inbox:app", dir); err == nil && info.Version > 0 {
			break
		}
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-sent; !errors.Is(err, single.ErrNotRunning) {
		t.Fatalf("Send: %v, want ErrNotRunning", err)
	}
}

func TestHundredsOfSendersTakeTurns(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	senders := 500 // more than the first page of a header has slots
	if runtime.GOOS == "windows" {
		senders = 100 // wine allows a process a thousand open files
	}
	sent := make(chan error, senders)
	for range senders {
		go func() { sent <- single.Send(context.Background(), "app", []byte("hello"), dir) }()
	}
	for { // until all wait, or one was refused
		info, err := shm.Stat("single-inbox:app", dir)
		if err == nil && info.Attached == senders+1 || len(sent) > 0 {
			break
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var failed error
	go func() {
		for range senders {
			failed = errors.Join(failed, <-sent)
		}
		cancel()
	}()
	got := 0
	for range app.Messages(ctx) {
		got++
	}
	if got != senders || failed != nil {
		t.Errorf("%d of %d messages arrived: %v", got, senders, failed)
	}
}
