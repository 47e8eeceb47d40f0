package shm_test

import (
	"context"
	"errors"
	"os"
	"testing"

	"qshm/shm"
)

// When Wait has returned because its context ended, nothing of it is left that
// could keep the attachment: the next Detach ends it before it returns.
func TestDetachAfterCancelledWaitIsComplete(t *testing.T) {
	dir := t.TempDir()
	for range 500 {
		seg, err := shm.Create("cancelled", 1, shm.Dir(dir))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		woken := make(chan error)
		go func() {
			_, err := seg.Wait(ctx, seg.Version())
			woken <- err
		}()
		cancel()
		if err := <-woken; !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		if err := seg.Detach(); err != nil {
			t.Fatal(err)
		}
		left, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		if len(left) > 0 {
			t.Fatalf("%v is left in the store after the last Detach", left)
		}
	}
}
