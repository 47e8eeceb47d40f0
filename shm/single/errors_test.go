package single_test

import (
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/single"
)

// wantError checks that err is an *shm.Error of this kind which names the operation and
// the key.
func wantError(t *testing.T, err error, op, key string, kind error) {
	t.Helper()
	var own *shm.Error
	if !errors.As(err, &own) || own.Op != op || own.Key != key || !errors.Is(err, kind) {
		t.Errorf("error %v, want one about %s of %q that is %v", err, op, key, kind)
	}
}

func TestEmptyKeyIsErrKey(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	_, err := single.Acquire("", dir)
	wantError(t, err, "acquire", "", shm.ErrKey)
	wantError(t, single.Send(context.Background(), "", nil, dir), "send", "", shm.ErrKey)
}

func TestErrorsNameTheCallersKey(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := single.Acquire("app", shm.Dir(file))
	var own *shm.Error
	if !errors.As(err, &own) || own.Op != "acquire" || own.Key != "app" {
		t.Errorf("Acquire: %v", err)
	}
	err = single.Send(context.Background(), "app", nil, shm.Dir(file))
	if !errors.As(err, &own) || own.Op != "send" || own.Key != "app" {
		t.Errorf("Send: %v", err)
	}
}

func TestReadOnlyIsRefused(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	_, err := single.Acquire("app", dir, shm.ReadOnly())
	wantError(t, err, "acquire", "app", shm.ErrReadOnly)
	if left, err := shm.List(dir); err != nil || len(left) != 0 {
		t.Fatalf("left in the store: %v, %v", left, err)
	}
	app := acquire(t, dir)
	defer app.Close()
	err = single.Send(context.Background(), "app", nil, dir, shm.ReadOnly())
	wantError(t, err, "send", "app", shm.ErrReadOnly)
}

// A file of another program is in the inbox's place. No process can become the
// instance then, and a failed Acquire does not keep the key.
func TestInboxThatCannotBeMadeIsAnError(t *testing.T) {
	store := t.TempDir()
	dir := shm.Dir(store)
	app := acquire(t, dir)
	info, err := shm.Stat("single-inbox:app", dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(info.Path, []byte("a user's notes"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = single.Acquire("app", dir)
	wantError(t, err, "acquire", "app", shm.ErrCorrupt)
	err = single.Send(context.Background(), "app", nil, dir)
	wantError(t, err, "send", "app", shm.ErrCorrupt)
	if err := os.Remove(info.Path); err != nil {
		t.Fatal(err)
	}
	acquire(t, dir).Close()
}

// An instance that has just started may have no inbox yet. A sender waits for it, as
// long as its context allows.
func TestSendWaitsForTheInbox(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	starting, err := shm.Create("single:app", 1, dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	sent := make(chan error, 1)
	go func() { sent <- single.Send(ctx, "app", nil, dir) }()
	time.Sleep(20 * time.Millisecond) // the result is the same if the sender has not come so far
	cancel()
	err = within(t, "Send", sent)
	wantError(t, err, "send", "app", context.Canceled)

	go func() { sent <- single.Send(context.Background(), "app", nil, dir) }()
	time.Sleep(20 * time.Millisecond)
	starting.Close() // as if it had died while it started
	err = within(t, "Send", sent)
	wantError(t, err, "send", "app", single.ErrNotRunning)
}

// Another process removes the inbox of an instance that is alive.
func TestSendEndsThoughTheInboxWasRemoved(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	sent := send(t, ctx, "late", dir)
	if err := shm.Remove("single-inbox:app", dir); err != nil {
		t.Fatal(err)
	}
	// The sender takes the piece back, and waits for another inbox. There is none as
	// long as this instance lives.
	time.Sleep(20 * time.Millisecond)
	cancel()
	if err := within(t, "Send", sent); !errors.Is(err, context.Canceled) {
		t.Errorf("Send: %v, want context.Canceled", err)
	}
	if err := app.Close(); err != nil {
		t.Error(err)
	}
}

// The instance is killed while a message that it has not taken is in its inbox.
func TestSendToAnInstanceThatDiesIsErrNotRunning(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	defer app.Close()
	sent := send(t, context.Background(), "late", dir)
	if err := shm.Remove("single:app", dir); err != nil { // to others, it has died
		t.Fatal(err)
	}
	wantError(t, within(t, "Send", sent), "send", "app", single.ErrNotRunning)
}

// A sender is killed after the first piece of its message. The next message is not
// taken for the rest of it.
func TestHalfOfADeadSendersMessageIsDropped(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	defer app.Close()
	dead, err := shm.Attach("single-inbox:app", dir)
	if err != nil {
		t.Fatal(err)
	}
	err = dead.Update(func(data []byte) error {
		for i, v := range []uint64{1, 77, 10, 0, 5} { // full, message 77, 5 bytes of 10
			binary.NativeEndian.PutUint64(data[8*i:], v)
		}
		copy(data[64:], "first half")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	dead.Close()
	sent := make(chan error, 1)
	go func() { sent <- single.Send(context.Background(), "app", []byte("whole"), dir) }()
	for message := range app.Messages(context.Background()) {
		if string(message) != "whole" {
			t.Errorf("got %q", message)
		}
		break
	}
	if err := within(t, "Send", sent); err != nil {
		t.Error(err)
	}
}

// A process that is stopped while it holds the inbox's lock keeps no instance from
// ending, nor the next one from beginning.
func TestCloseEndsThoughTheInboxIsLocked(t *testing.T) {
	dir := shm.Dir(t.TempDir())
	app := acquire(t, dir)
	holdInbox(t, dir)
	if err := app.Close(); err != nil {
		t.Fatal(err)
	}
	if err := acquire(t, dir).Close(); err != nil {
		t.Error(err)
	}
}
