package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
	"qshm/shm/stream"
)

// What the commands over streams have in common.

const minRing = 4096

// checkRing refuses a ring that is too small or too large.
func checkRing(cmd *cobra.Command, size units.Size) error {
	if size < minRing || uint64(size) > 8<<30 {
		return usage(cmd, "--size %d: want %d bytes to 8 GiB", size, minRing)
	}
	return nil
}

// openStream attaches to the stream of a key, or creates it with a ring of size bytes.
func openStream(cmd *cobra.Command, key string, size int) (*stream.Stream, error) {
	return stream.Open(key, size, storeOptions(shm.WithContext(cmd.Context()))...)
}

// interruptible calls fn, and does not wait for it if ctx ends: a read of the input
// cannot be cancelled; it ends with the process.
func interruptible(ctx context.Context, fn func() error) error {
	done := make(chan error, 1)
	go func() { done <- fn() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// pause waits for a while, unless the context ends.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// A transfer is a number of messages that are sent or received. It shows on a terminal
// how far it is, if it takes longer than two seconds, and says which reader holds it up.
type transfer struct {
	*stream.Stream
	cmd             *cobra.Command
	verb            string // "sent", "received"; empty: show no numbers
	messages, bytes atomic.Int64
	waits           atomic.Bool // in a call that may wait for readers
	keepsJobs       bool        // see joinGroups
	mu              sync.Mutex
	groups          map[string]bool // joined; mu guards it
	stop            chan struct{}
	watch           sync.WaitGroup
}

const (
	firstProgress = 2 * time.Second
	everyProgress = 500 * time.Millisecond
)

func newTransfer(cmd *cobra.Command, s *stream.Stream, verb string, keepsJobs bool) *transfer {
	t := &transfer{Stream: s, cmd: cmd, verb: verb, keepsJobs: keepsJobs, stop: make(chan struct{}), groups: map[string]bool{}}
	if !terminal.Is(cmd.ErrOrStderr()) {
		t.verb = ""
	}
	t.watch.Go(t.run)
	return t
}

// end ends what is shown.
func (t *transfer) end() {
	close(t.stop)
	t.watch.Wait()
}

func (t *transfer) send(ctx context.Context, message []byte) error {
	t.waits.Store(true)
	err := t.Send(ctx, message)
	t.waits.Store(false)
	if err == nil {
		t.add(len(message))
	}
	return err
}

// awaitReader waits for the first reader, and says so.
func (t *transfer) awaitReader(ctx context.Context) error {
	if info, err := t.Info(); err == nil && len(info.Readers) == 0 {
		say(t.cmd, "waiting for a reader")
	}
	err := t.AwaitReader(ctx)
	t.joinGroups()
	return err
}

// flush waits until the readers have read everything.
func (t *transfer) flush(ctx context.Context) error {
	t.joinGroups()
	t.waits.Store(true)
	return t.Flush(ctx)
}

// fewReaders is half of the readers that a stream can have: senders leave the other half
// to workers. Other senders are members then.
const fewReaders = 32

// joinGroups makes a sender a member of the groups that there are. It takes no message,
// but a group with a member is waited for: if all of its workers have died, their
// messages are kept for the next worker.
func (t *transfer) joinGroups() {
	if !t.keepsJobs {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	info, _ := t.Info()
	for _, r := range info.Readers {
		if r.Group != "" && !t.groups[r.Group] && len(info.Readers) < fewReaders {
			_, err := t.Subscribe(stream.Group(r.Group))
			t.groups[r.Group] = err == nil
		}
	}
}

func (t *transfer) add(n int) {
	t.messages.Add(1)
	t.bytes.Add(int64(n))
}

func (t *transfer) run() {
	line := terminal.StatusLine{Out: t.cmd.ErrOrStderr()}
	defer line.Clear()
	begun := time.Now()
	tick := time.NewTicker(everyProgress)
	defer tick.Stop()
	before, still := int64(0), 0
	for {
		select {
		case <-tick.C:
		case <-t.stop:
			return
		}
		t.joinGroups()
		n := t.messages.Load()
		if still++; n != before || !t.waits.Load() {
			still = 0
		}
		if still == int(firstProgress/everyProgress) {
			line.Clear()
			t.sayWhoIsBehind()
		}
		if took := time.Since(begun); n != before && t.verb != "" && took > firstProgress {
			line.Show(fmt.Sprintf("%s %s, %s, %s a second", t.verb, units.Count(n, "message"),
				units.About(t.bytes.Load()), units.About(int64(float64(t.bytes.Load())/took.Seconds()))))
		}
		before = n
	}
}

// sayWhoIsBehind names the reader that is most behind, or a group that has no worker.
func (t *transfer) sayWhoIsBehind() {
	info, _ := t.Info()
	var slowest stream.Reader
	workers := map[string]bool{}
	for _, r := range info.Readers {
		if r.Group != "" && r.ID == t.ID() {
			continue // this sender
		}
		workers[r.Group] = true
		if !r.Latest && r.Behind > slowest.Behind {
			slowest = r
		}
	}
	if slowest.Behind > 0 {
		say(t.cmd, "waiting for the reader in process %d, which is %s behind", slowest.PID, units.Count(slowest.Behind, "byte"))
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for group := range t.groups {
		if !workers[group] {
			say(t.cmd, "waiting for a worker: the group %q has none left, and messages that are not done", group)
		}
	}
}
