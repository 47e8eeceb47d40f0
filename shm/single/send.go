package single

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"qshm/shm"
)

// The inbox holds one piece of one message at a time. A sender has the inbox's lock
// while it sends a message: so senders take turns. It puts a piece in, and waits until
// the instance has taken it. The instance needs no lock.
//
// The state says whether the inbox is full, and counts the pieces. One compare-and-swap
// changes it from full to empty: the instance takes the piece, or the sender takes it
// back. The first of the two decides, and neither waits for the other. The instance
// copies a piece before it takes it. If the sender takes it back meanwhile, the copy
// may be half of another piece, and is dropped.
//
// If the sender dies, the instance takes the piece all the same, and drops the
// incomplete message when the next one begins. If the instance dies, the sender
// notices within patience.
type mailbox struct {
	state   atomic.Uint64 // boxEmpty, …, and boxPiece for each piece; written last
	message uint64        // which one this piece is of
	total   uint64        // length of the message
	offset  uint64        // of the piece in it
	length  uint64        // of the piece
}

const (
	boxEmpty = iota
	boxFull
	boxClosed  // the instance has ended
	boxRefused // it has ended, and the piece in the box was not taken
	boxMask    = 3
	boxPiece   = 4

	boxHeader = 64
	pieceSize = 64<<10 - boxHeader
	inboxSize = boxHeader + pieceSize
)

// patience is how long a sender waits before it asks whether the instance is alive.
const patience = 250 * time.Millisecond

// is reports whether a state says that the inbox is full, empty and so on.
func is(state, what uint64) bool { return state&boxMask == what }

// end marks the box: the instance has ended.
func (b *mailbox) end() {
	for {
		state := b.state.Load()
		ended := state&^boxMask | boxClosed
		if is(state, boxFull) {
			ended = state&^boxMask | boxRefused
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

// add returns the assembly with the piece in the box, and whether the message is
// complete then. Another piece may be written meanwhile.
func (a assembly) add(box *mailbox, piece []byte) (assembly, bool) {
	message, total, offset, length := box.message, box.total, box.offset, box.length
	if offset == 0 {
		a = assembly{message: message}
	}
	if a.message != message || uint64(len(a.bytes)) != offset || length > uint64(len(piece)) {
		return assembly{}, false // the rest of a message whose beginning went to another instance
	}
	a.bytes = append(a.bytes, piece[:length]...)
	return a, uint64(len(a.bytes)) >= total
}

var errReplaced = errors.New("the instance was replaced")

// maxSenders is how many processes can be senders at a time. Each is an attachment.
const maxSenders = 4096

// Send hands message, of any length, to the running instance, and returns when the
// instance has taken it. Senders take turns; at most 4096 can wait. A process that
// sends often is faster with a Sender.
//
// Errors: ErrNotRunning if no instance is alive, or if it ends first; shm.ErrNoSpace
// if too many senders wait; shm.ErrReadOnly; the context's. After an error the message
// was not taken, with one exception: an instance that was killed may have taken it
// right before.
func Send(ctx context.Context, key string, message []byte, opts ...shm.Option) error {
	if key == "" {
		return fail("send", key, shm.ErrKey)
	}
	s := NewSender(key, opts...)
	defer s.Close()
	return s.Send(ctx, message)
}

// A Sender sends messages to the instance of a key, whichever that is at the time. One
// goroutine at a time may use it.
type Sender struct {
	key   string
	opts  []shm.Option
	inbox *shm.Segment // nil: not attached
	box   *mailbox

	begun bool // the instance has taken a piece of the message
}

// NewSender returns a Sender for key. The options are those of shm.Attach. Close it
// when it is not needed any more: it keeps the inbox of the instance.
func NewSender(key string, opts ...shm.Option) *Sender {
	return &Sender{key: key, opts: opts}
}

// Close ends the use of the Sender, and frees its memory. A Send after that begins
// anew.
func (s *Sender) Close() error {
	inbox := s.inbox
	s.inbox, s.box = nil, nil
	if inbox == nil {
		return nil
	}
	if err := inbox.Close(); err != nil {
		return fail("close", s.key, err)
	}
	return nil
}

// Send is the function Send.
//
// Errors: those of the function.
func (s *Sender) Send(ctx context.Context, message []byte) error {
	if s.key == "" {
		return fail("send", s.key, shm.ErrKey)
	}
	for {
		err := s.attach(ctx)
		if err == nil {
			err = s.send(ctx, message)
		}
		if err == nil {
			return nil
		}
		s.Close() // the next Send looks for the instance of that time
		if !errors.Is(err, errReplaced) {
			return fail("send", s.key, err)
		}
	}
}

// attach attaches to the inbox. An instance that has just started may not have made
// it yet.
func (s *Sender) attach(ctx context.Context) error {
	if err := ctx.Err(); err != nil || s.inbox != nil {
		return err
	}
	opts := append(s.opts[:len(s.opts):len(s.opts)], shm.WithContext(ctx))
	for {
		inbox, err := shm.Attach(inboxKey(s.key), opts...)
		if err == nil {
			s.inbox = inbox
			if inbox.ReadOnly() {
				return shm.ErrReadOnly
			}
			s.box, err = shm.Value[mailbox](inbox, 0)
			return err
		}
		if !errors.Is(err, shm.ErrNotExist) {
			return err
		}
		if alive, err := running(s.key, s.opts); err != nil || !alive {
			return orElse(err, notRunning("start one first"))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
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

// send sends one message, once it is this sender's turn.
func (s *Sender) send(ctx context.Context, message []byte) error {
	s.begun = false
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.inbox.Unlock()
	// The piece of a sender that has died may still be in the box, and that sender may
	// not have told the instance.
	if is(s.box.state.Load(), boxFull) {
		if err := s.inbox.Notify(); err != nil {
			return err
		}
	}
	if err := s.await(ctx); err != nil {
		if errors.Is(err, ErrNotRunning) {
			return s.ended(err)
		}
		return err
	}
	for offset := 0; ; {
		n := min(len(message)-offset, pieceSize)
		if err := s.put(message, offset, n); err != nil {
			return err
		}
		last := offset+n == len(message)
		if err := s.await(ctx); err != nil && !(s.taken() && last) {
			return err
		}
		if last {
			return nil
		}
		s.begun = true
		offset += n
	}
}

// lock waits for this sender's turn. The instance may die while another sender, which
// has the turn, is stopped.
func (s *Sender) lock(ctx context.Context) error {
	for {
		limited, cancel := context.WithTimeout(ctx, patience)
		err := s.inbox.LockContext(limited)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return err
		}
		if err := s.lookForInstance(); err != nil {
			return err
		}
	}
}

// ended tells why the instance of this inbox takes no message: it has ended, but there
// may be another one by now.
func (s *Sender) ended(err error) error {
	if s.begun {
		return err
	}
	if alive, look := running(s.key, s.opts); look != nil || !alive {
		return orElse(look, err)
	}
	return errReplaced
}

// put puts the n bytes of message from offset on into the box, which is empty.
func (s *Sender) put(message []byte, offset, n int) error {
	if offset == 0 {
		s.box.message++
	}
	s.box.total, s.box.offset, s.box.length = uint64(len(message)), uint64(offset), uint64(n)
	copy(s.inbox.Data()[boxHeader:], message[offset:offset+n])
	state := s.box.state.Load()
	if !is(state, boxEmpty) || !s.box.state.CompareAndSwap(state, state+boxPiece+boxFull) {
		return s.ended(notRunning("it has just ended"))
	}
	return s.inbox.Notify()
}

// await waits until the box is empty.
func (s *Sender) await(ctx context.Context) error {
	for {
		version := s.inbox.Version()
		switch state := s.box.state.Load(); {
		case is(state, boxEmpty):
			return nil
		case !is(state, boxFull):
			return notRunning("it has ended")
		}
		if err := s.waitOrLook(ctx, version); err != nil {
			return err
		}
	}
}

// taken takes the piece out of the box again, so that the instance does not take a
// message whose sender is told of an error. It reports true if the instance was faster.
func (s *Sender) taken() bool {
	state := s.box.state.Load()
	if is(state, boxFull) && s.box.state.CompareAndSwap(state, state-boxFull) {
		return false
	}
	return !is(s.box.state.Load(), boxRefused)
}

// waitOrLook waits for a change. If there is none within patience, it asks whether the
// instance is alive.
func (s *Sender) waitOrLook(ctx context.Context, version uint32) error {
	limited, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if _, err := s.inbox.Wait(limited, version); err == nil || ctx.Err() != nil {
		return ctx.Err()
	}
	return s.lookForInstance()
}

// lookForInstance reports an error if the instance that the inbox belongs to is not
// alive.
func (s *Sender) lookForInstance() error {
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
