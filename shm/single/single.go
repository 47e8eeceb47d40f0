// Package single lets one instance of a program run per key, and later ones hand
// it a message.
//
//	app, err := single.Acquire("editor")
//	if errors.Is(err, single.ErrRunning) {
//		return single.Send(ctx, "editor", []byte(os.Args[1]))
//	}
//	defer app.Close()
//	for message := range app.Messages(ctx) {
//		open(string(message))
//	}
//
// The kernel's locks decide which process is the instance, and not process numbers:
// an instance that was killed is replaced at once, and an instance in another
// container that shares the store counts.
package single

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"

	"qshm/shm"
)

var (
	// ErrRunning: another instance is alive.
	ErrRunning = errors.New("another instance is running")
	// ErrNotRunning: no instance is alive, or it ended before it took the message.
	ErrNotRunning = errors.New("no instance is running")
)

// The segments of a key. Only the instance is attached to the first, so that segment
// exists as long as the instance lives. Senders attach to the inbox.
func instanceKey(key string) string { return "single:" + key }
func inboxKey(key string) string    { return "single-inbox:" + key }

// An Instance is the running instance of a key.
type Instance struct {
	key     string
	running *shm.Segment
	inbox   *shm.Segment
	ending  context.Context // ends with Close
	end     context.CancelFunc

	touching sync.Mutex // guards box; held while the inbox is used
	box      *mailbox   // nil after Close

	taking  sync.Mutex // held by the loop over Messages
	partial assembly
}

// Acquire makes the calling process the instance of key. It reports ErrRunning if
// another instance is alive. The options are those of shm.Create; shm.ErrReadOnly
// refuses a read-only attachment.
func Acquire(key string, opts ...shm.Option) (*Instance, error) {
	if key == "" {
		return nil, fail("acquire", key, shm.ErrKey)
	}
	running, err := shm.Create(instanceKey(key), 1, opts...)
	if errors.Is(err, shm.ErrExist) {
		err = ErrRunning
	}
	if err != nil {
		return nil, fail("acquire", key, err)
	}
	if running.ReadOnly() {
		running.Close()
		return nil, fail("acquire", key, shm.ErrReadOnly)
	}
	// An inbox may still exist, held by processes that were sending when the former
	// instance died. They notice that; the new instance has an inbox of its own.
	inbox, err := create(inboxKey(key), inboxSize, append(opts[:len(opts):len(opts)], shm.MaxAttachments(maxSenders+1)))
	if err != nil {
		running.Close()
		return nil, fail("acquire", key, err)
	}
	box, err := shm.Value[mailbox](inbox, 0)
	if err != nil {
		inbox.Close()
		running.Close()
		return nil, fail("acquire", key, err)
	}
	i := &Instance{key: key, running: running, inbox: inbox, box: box}
	i.ending, i.end = context.WithCancel(context.Background())
	return i, nil
}

// create makes a new segment, also if processes are attached to one of that key.
func create(key string, size int, opts []shm.Option) (*shm.Segment, error) {
	for {
		seg, err := shm.Create(key, size, opts...)
		if !errors.Is(err, shm.ErrExist) {
			return seg, err
		}
		if err := shm.Remove(key, opts...); err != nil && !errors.Is(err, shm.ErrNotExist) {
			return nil, err
		}
	}
}

// Messages yields the messages that other processes send, each once, in the order in
// which the senders had their turns. It ends with the context, or with Close. A sender
// is told that its message was taken right before the loop gets it.
//
// While no goroutine loops over Messages, senders wait.
func (i *Instance) Messages(ctx context.Context) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		i.taking.Lock()
		defer i.taking.Unlock()
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(i.ending, cancel)()
		for {
			message, err := i.next(ctx)
			if err != nil || !yield(message) {
				return
			}
		}
	}
}

// next waits for a message. It holds touching meanwhile: Close ends ctx, and then
// waits until next has returned.
func (i *Instance) next(ctx context.Context) ([]byte, error) {
	i.touching.Lock()
	defer i.touching.Unlock()
	for {
		if i.box == nil {
			return nil, shm.ErrDetached
		}
		version := i.inbox.Version() // before the look, so that no change after it is missed
		if message, ok := i.take(); ok {
			return message, nil
		}
		if _, err := i.inbox.Wait(ctx, version); err != nil {
			return nil, err
		}
	}
}

// take moves the piece in the inbox to the message that is being put together. It
// reports true when the message is complete.
func (i *Instance) take() (message []byte, ok bool) {
	state := i.box.state.Load()
	if !is(state, boxFull) {
		return nil, false
	}
	partial, complete := i.partial.add(i.box, i.inbox.Data()[boxHeader:])
	if !i.box.state.CompareAndSwap(state, state-boxFull) {
		i.partial = assembly{} // taken back, meanwhile
		return nil, false
	}
	i.partial = partial
	i.inbox.Notify()
	if complete {
		message, i.partial = partial.bytes, assembly{}
	}
	return message, complete
}

// Close ends the instance: the key can be acquired again. Processes that are sending
// get ErrNotRunning.
func (i *Instance) Close() error {
	i.end()
	i.touching.Lock()
	defer i.touching.Unlock()
	if i.box == nil {
		return nil // a second Close
	}
	i.box.end()
	i.box = nil
	i.inbox.Notify()
	if err := errors.Join(i.inbox.Close(), i.running.Close()); err != nil {
		return fail("close", i.key, err)
	}
	return nil
}

func fail(op, key string, err error) error {
	var inner *shm.Error
	if errors.As(err, &inner) {
		err = inner.Err
	}
	return &shm.Error{Op: op, Key: key, Err: err}
}

// notRunning explains ErrNotRunning.
func notRunning(why string) error { return fmt.Errorf("%w: %s", ErrNotRunning, why) }
