package single_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/single"
)

// limit bounds waits that end only if something is broken.
const limit = 30 * time.Second

// holdInbox locks the inbox, as a process that was stopped while it held the lock.
func holdInbox(t *testing.T, dir shm.Option) *shm.Segment {
	t.Helper()
	holder, err := shm.Attach("single-inbox:app", dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { holder.Close() })
	if err := holder.Lock(); err != nil {
		t.Fatal(err)
	}
	return holder
}

func acquire(t *testing.T, dir shm.Option) *single.Instance {
	t.Helper()
	app, err := single.Acquire("app", dir)
	if err != nil {
		t.Fatal(err)
	}
	return app
}

// send sends in another goroutine, and returns when the message is in the inbox.
func send(t *testing.T, ctx context.Context, message string, dir shm.Option) <-chan error {
	t.Helper()
	before := inboxVersion(dir)
	sent := make(chan error, 1)
	go func() { sent <- single.Send(ctx, "app", []byte(message), dir) }()
	for end := time.Now().Add(limit); inboxVersion(dir) == before; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("no message in the inbox")
		}
	}
	return sent
}

func inboxVersion(dir shm.Option) uint32 {
	info, _ := shm.Stat("single-inbox:app", dir)
	return info.Version
}

func within(t *testing.T, what string, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(limit):
		t.Fatal(what + " does not end")
		return nil
	}
}

// A process that is stopped while it holds the inbox's lock delays other senders only
// as long as their contexts allow.
func TestSendEndsWithItsContextThoughTheInboxIsLocked(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	defer app.Close()
	holder := holdInbox(t, dir)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	sent := make(chan error, 1)
	go func() { sent <- single.Send(ctx, "app", nil, dir) }()
	if err := within(t, "Send", sent); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Send: %v, want context.DeadlineExceeded", err)
	}
	holder.Close()
}

// The instance does not need the inbox's lock: a sender has it.
func TestMessagesEndThoughTheInboxIsLocked(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	holder := holdInbox(t, dir)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	ended := make(chan error, 3)
	loop := func(ctx context.Context) {
		for m := range app.Messages(ctx) {
			ended <- errors.New("got " + string(m))
			return
		}
		ended <- nil
	}
	go loop(ctx)
	if err := within(t, "Messages", ended); err != nil {
		t.Error(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- single.Send(context.Background(), "app", nil, dir) }() // waits for its turn
	go loop(context.Background())                                              // ends with Close
	go func() { ended <- app.Close() }()
	for range 2 {
		if err := within(t, "Close, or Messages,", ended); err != nil {
			t.Error(err)
		}
	}
	if err := within(t, "Send", sent); !errors.Is(err, single.ErrNotRunning) {
		t.Errorf("Send: %v, want ErrNotRunning", err)
	}
	holder.Close()
	if left, err := shm.List(dir); err != nil || len(left) != 0 {
		t.Errorf("left in the store: %v, %v", left, err)
	}
}

// The loop over Messages may end the instance.
func TestCloseInsideTheLoop(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	sent := send(t, context.Background(), "stop", dir)
	ended := make(chan error, 1)
	go func() {
		for range app.Messages(context.Background()) {
			app.Close()
		}
		ended <- nil
	}()
	within(t, "the loop", ended)
	if err := within(t, "Send", sent); err != nil {
		t.Errorf("Send: %v, want nil, since the message was taken", err)
	}
	for m := range app.Messages(context.Background()) {
		t.Errorf("got %q after Close", m)
	}
}
