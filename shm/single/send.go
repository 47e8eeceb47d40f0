package single

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"qshm/shm"
)

// The inbox holds one piece of one message at a time. The sender whose turn it is puts
// a piece in and waits until the instance has taken it.
//
// One compare-and-swap changes the state from full to empty: the instance takes the
// piece, or the sender takes it back. The first of the two decides, and neither waits
// for the other. The lock of the inbox only keeps a piece from being written while
// another piece is read.
//
// If the sender dies, the instance takes the piece all the same, and drops the
// incomplete message when the next one begins. If the instance dies, the sender
// notices within patience.
type mailbox struct {
	state   atomic.Uint32 // written last: a piece counts from then on
	_       uint32
	message uint64 // which one this piece is of
	total   uint64 // length of the message
	offset  uint64 // of the piece in it
	length  uint64 // of the piece
}

const (
	boxEmpty = iota
	boxFull
	boxClosed  // the instance has ended
	boxRefused // it has ended, and the piece in the box was not taken

	boxHeader = 64
	pieceSize = 64<<10 - boxHeader
	inboxSize = boxHeader + pieceSize
)

// patience is how long a sender waits before it asks whether the instance is alive.
const patience = 250 * time.Millisecond

// end marks the box: the instance has ended.
func (b *mailbox) end() {
	for {
		state, ended := b.state.Load(), uint32(boxClosed)
		if state == boxFull {
			ended = boxRefused
		}
		if b.state.CompareAndSwap(state, ended) {
			return
		}
	}
}

// assembly is a message that is being put together.
type assembly struct {
	message uint64
	bytes   []byte
}

// add adds the piece in the box. It returns the message once that is complete.
func (a *assembly) add(box *mailbox, piece []byte) (message []byte, complete bool) {
	if box.offset == 0 {
		*a = assembly{message: box.message}
	}
	if a.message != box.message || uint64(len(a.bytes)) != box.offset || box.length > uint64(len(piece)) {
		return nil, false // the rest of a message whose beginning went to another instance
	}
	a.bytes = append(a.bytes, piece[:box.length]...)
	if uint64(len(a.bytes)) < box.total {
		return nil, false
	}
	message, a.bytes = a.bytes, nil
	return message, true
}

var errReplaced = errors.New("the instance was replaced")

// maxSenders is how many senders can wait for their turn. Each is an attachment.
const maxSenders = 4096

// Send hands message, of any length, to the running instance, and returns when the
// instance has taken it. Senders take turns; at most 4096 can wait.
//
// Errors: ErrNotRunning if no instance is alive, or if it ends first; shm.ErrNoSpace
// if too many senders wait; shm.ErrReadOnly; the context's. After an error the message
// was not taken, with one exception: an instance that was killed may have taken it
// right before.
func Send(ctx context.Context, key string, message []byte, opts ...shm.Option) error {
	if key == "" {
		return fail("send", key, shm.ErrKey)
	}
	opts = append(opts[:len(opts):len(opts)], shm.WithContext(ctx))
	for {
		err := send(ctx, key, message, opts)
		if err == nil {
			return nil
		}
		if !errors.Is(err, errReplaced) {
			return fail("send", key, err)
		}
	}
}

func send(ctx context.Context, key string, message []byte, opts []shm.Option) error {
	turn, _, err := shm.Open(turnKey(key), 1, append(opts[:len(opts):len(opts)], shm.MaxAttachments(maxSenders))...)
	if err != nil {
		return err
	}
	defer turn.Close()
	if err := turn.LockContext(ctx); err != nil {
		return err
	}
	defer turn.Unlock()

	inbox, err := attach(ctx, key, opts)
	if err != nil {
		return err
	}
	defer inbox.Close()
	if inbox.ReadOnly() {
		return shm.ErrReadOnly
	}
	box, err := shm.Value[mailbox](inbox, 0)
	if err != nil {
		return err
	}
	s := sender{ctx: ctx, key: key, opts: opts, inbox: inbox, box: box}
	return s.send(message)
}

// attach attaches to the inbox. An instance that has just started may not have made
// it yet.
func attach(ctx context.Context, key string, opts []shm.Option) (*shm.Segment, error) {
	for {
		inbox, err := shm.Attach(inboxKey(key), opts...)
		if !errors.Is(err, shm.ErrNotExist) {
			return inbox, err
		}
		if alive, err := running(key, opts); err != nil || !alive {
			return nil, orElse(err, notRunning("start one first"))
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
}

// running reports whether an instance is alive.
func running(key string, opts []shm.Option) (bool, error) {
	info, err := shm.Stat(instanceKey(key), opts...)
	if errors.Is(err, shm.ErrNotExist) {
		return false, nil
	}
	return info.Status == shm.StatusLive, err
}

func orElse(err, other error) error {
	if err != nil {
		return err
	}
	return other
}

// sender sends one message. It has the turn: except for the instance, no other
// process writes the box.
type sender struct {
	ctx   context.Context
	key   string
	opts  []shm.Option
	inbox *shm.Segment
	box   *mailbox

	begun bool // the instance has taken a piece
}

func (s *sender) send(message []byte) error {
	// The piece of a sender that has died may still be in the box. If that sender died
	// while it held the lock, the instance has not been told of the piece: an unlock
	// tells it.
	if s.box.state.Load() == boxFull {
		if err := s.inbox.LockContext(s.ctx); err != nil {
			return err
		}
		s.inbox.Unlock()
	}
	if err := s.await(); err != nil {
		return err
	}
	for offset := 0; ; {
		n := min(len(message)-offset, pieceSize)
		if err := s.put(message, offset, n); err != nil {
			return err
		}
		last := offset+n == len(message)
		if err := s.await(); err != nil && !(s.taken() && last) {
			return err
		}
		if last {
			return nil
		}
		s.begun = true
		offset += n
	}
}

// put puts the n bytes of message from offset on into the box, which is empty.
func (s *sender) put(message []byte, offset, n int) error {
	if err := s.inbox.LockContext(s.ctx); err != nil {
		return err
	}
	defer s.inbox.Unlock()
	if offset == 0 {
		s.box.message++
	}
	s.box.total, s.box.offset, s.box.length = uint64(len(message)), uint64(offset), uint64(n)
	copy(s.inbox.Data()[boxHeader:], message[offset:offset+n])
	if !s.box.state.CompareAndSwap(boxEmpty, boxFull) {
		return notRunning("it has just ended")
	}
	return nil
}

// await waits until the box is empty.
func (s *sender) await() error {
	for {
		version := s.inbox.Version()
		switch s.box.state.Load() {
		case boxEmpty:
			return nil
		case boxClosed, boxRefused:
			return notRunning("it has ended")
		}
		if err := s.waitOrLook(version); err != nil {
			return err
		}
	}
}

// taken takes the piece out of the box again, so that the instance does not take a
// message whose sender is told of an error. It reports true if the instance was faster.
func (s *sender) taken() bool {
	return !s.box.state.CompareAndSwap(boxFull, boxEmpty) && s.box.state.Load() != boxRefused
}

// waitOrLook waits for a change. If there is none within patience, it asks whether the
// instance that the inbox belongs to is alive.
func (s *sender) waitOrLook(version uint32) error {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	if _, err := s.inbox.Wait(ctx, version); err == nil || s.ctx.Err() != nil {
		return s.ctx.Err()
	}
	info, err := s.inbox.Info()
	if err != nil {
		return err
	}
	if alive, err := running(s.key, s.opts); err != nil || !alive {
		return orElse(err, notRunning("it died before it took the message"))
	}
	if info.Status != shm.StatusLive {
		if s.begun {
			return notRunning("it died while it took the message; another has started since")
		}
		return errReplaced
	}
	return nil
}
