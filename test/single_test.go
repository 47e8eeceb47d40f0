package test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/single"
)

// One instance per key, and the messages that other processes send to it: package
// qshm/shm/single between processes.

// instances are the instances of this process and their messages, for the calls below.
var instances struct {
	sync.Mutex
	of       map[string]*single.Instance
	messages map[string][][]byte
	arrived  chan struct{} // closed, and replaced, with each message
}

func init() {
	kinds["ErrRunning"], kinds["ErrNotRunning"] = single.ErrRunning, single.ErrNotRunning
	instances.of, instances.messages = map[string]*single.Instance{}, map[string][][]byte{}
	instances.arrived = make(chan struct{})
	// single acquire acquires the key, at the same time as others if N is 1.
	extra["single acquire"] = func(c *child, _ context.Context, r request, a *answer) error {
		if r.N == 1 {
			<-c.gate
		}
		i, err := single.Acquire(string(r.Key))
		if err == nil {
			instances.Lock()
			instances.of[string(r.Key)] = i
			instances.Unlock()
		}
		return err
	}
	extra["single close"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		instances.Lock()
		defer instances.Unlock()
		return instances.of[string(r.Key)].Close()
	}
	// single listen keeps the messages that arrive until its context ends or the instance is
	// closed.
	extra["single listen"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		instances.Lock()
		i := instances.of[string(r.Key)]
		instances.Unlock()
		for m := range i.Messages(ctx) {
			instances.Lock()
			instances.messages[string(r.Key)] = append(instances.messages[string(r.Key)], m)
			close(instances.arrived)
			instances.arrived = make(chan struct{})
			instances.Unlock()
		}
		return nil
	}
	// single message waits for message N, counted from zero.
	extra["single message"] = func(_ *child, _ context.Context, r request, a *answer) error {
		for {
			instances.Lock()
			all, arrived := instances.messages[string(r.Key)], instances.arrived
			instances.Unlock()
			if len(all) > r.N {
				a.Data = all[r.N]
				return nil
			}
			<-arrived
		}
	}
	extra["single count"] = func(_ *child, _ context.Context, r request, a *answer) error {
		instances.Lock()
		defer instances.Unlock()
		a.N = len(instances.messages[string(r.Key)])
		return nil
	}
	// single send sends Data, or N zeros.
	extra["single send"] = func(_ *child, ctx context.Context, r request, _ *answer) error {
		m := r.Data
		if r.N > 0 {
			m = make([]byte, r.N)
		}
		return single.Send(ctx, string(r.Key), m)
	}
	// single flood sends one message of each length, when the gate opens.
	extra["single flood"] = func(c *child, ctx context.Context, r request, _ *answer) error {
		<-c.gate
		for n, length := range floodLengths {
			if err := single.Send(ctx, string(r.Key), floodMessage(r.N, n, length)); err != nil {
				return fmt.Errorf("message %d: %w", n, err)
			}
		}
		return nil
	}
}

func acquireRequest() request { return request{Op: "single acquire", Key: key("app")} }

func sendRequest(m string) request {
	return request{Op: "single send", Key: key("app"), Data: []byte(m)}
}

func (p *proc) acquire() { p.t.Helper(); p.do(acquireRequest()) }

func (p *proc) listenForMessages() *pending {
	return p.begin(request{Op: "single listen", Key: key("app")})
}

func (p *proc) send(m string) { p.t.Helper(); p.do(sendRequest(m)) }

func (p *proc) goSend(m string) *pending { return p.begin(sendRequest(m)) }

func (p *proc) closeInstance() { p.t.Helper(); p.do(request{Op: "single close", Key: key("app")}) }

func (p *proc) message(n int) []byte {
	p.t.Helper()
	return p.do(request{Op: "single message", Key: key("app"), N: n}).Data
}

func (p *proc) wantMessages(want ...string) {
	p.t.Helper()
	for n, w := range want {
		if got := string(p.message(n)); got != w {
			p.t.Errorf("message %d: %d bytes %.20q, want %d bytes %.20q", n, len(got), got, len(w), w)
		}
	}
	if n := p.do(request{Op: "single count", Key: key("app")}).N; n != len(want) {
		p.t.Errorf("%d messages arrived, want %d", n, len(want))
	}
}

// longRequest sends a message of some thousand pieces, of which the inbox holds one at a
// time.
func longRequest() request { return request{Op: "single send", Key: key("app"), N: 1 << 28} }

// The inbox behind the instance's key, as package single names it.
const inboxKey = "single-inbox:app"

// inboxVersion counts the pieces that were put into the inbox or taken out of it.
func (st *store) inboxVersion() uint32 {
	info, _ := shm.Stat(inboxKey, shm.Dir(st.dir))
	return info.Version
}

func (st *store) awaitInbox(version uint32) {
	st.t.Helper()
	eventually(st.t, fmt.Sprintf("version %d of the inbox", version), func() bool { return st.inboxVersion() >= version })
}

// awaitSenders waits until n processes are sending or waiting for their turn.
func (st *store) awaitSenders(n int) {
	st.t.Helper()
	eventually(st.t, fmt.Sprintf("%d senders", n), func() bool {
		info, err := shm.Stat(inboxKey, shm.Dir(st.dir))
		return err == nil && len(pids(info)) > n // and the instance
	})
}

func TestSingleOneOfManyGetsTheKey(t *testing.T) {
	st := newStore(t)
	procs := st.startN(100)
	calls := beginAtOnce(procs, func(int) request { return request{Op: "single acquire", Key: key("app"), N: 1} })
	winner := onlyWinner(t, procs, calls)
	winner.closeInstance()
	st.wantFiles()
	procs[0].acquire()
	procs[0].closeInstance()
	st.wantFiles()
}

// One call of Acquire for each process is enough.
func TestSingleOneOfManyReplacesAKilledInstance(t *testing.T) {
	st := newStore(t)
	procs := st.startN(50)
	for range 5 {
		app := st.start()
		app.acquire()
		app.kill()
		calls := make([]*pending, len(procs))
		for n, p := range procs {
			calls[n] = p.begin(acquireRequest())
		}
		onlyWinner(t, procs, calls).closeInstance()
		st.wantFiles()
	}
}

// onlyWinner returns the process whose Acquire has succeeded. The others must have
// reported ErrRunning.
func onlyWinner(t *testing.T, procs []*proc, calls []*pending) (winner *proc) {
	t.Helper()
	for n, call := range calls {
		switch _, err := call.outcome(); {
		case err == nil && winner != nil:
			t.Error("Acquire has succeeded in two processes at once")
		case err == nil:
			winner = procs[n]
		default:
			wantError(t, err, single.ErrRunning)
		}
	}
	if winner == nil {
		t.Fatal("Acquire has succeeded in no process")
	}
	return winner
}

var floodLengths = []int{0, 1, 17, 4096, 65471, 65472, 65473, 100_000, 0, 1000}

// floodMessage returns message n of a sender: a text with both numbers, and then bytes
// that depend on them. A message that is too short for the text has no byte, or one.
func floodMessage(sender, n, length int) []byte {
	m := []byte(fmt.Sprintf("%d/%d:", sender, n))
	for i := len(m); i < length; i++ {
		m = append(m, byte(i*31+sender*7+n))
	}
	return m[:min(length, len(m))]
}

func TestSingleEachMessageArrivesOnceAndInOrder(t *testing.T) {
	st := newStore(t)
	app := st.start()
	app.acquire()
	listening := app.listenForMessages()
	n := 50
	if runtime.GOOS == "windows" {
		n = 10 // wine keeps a file open that was closed, as long as a slot of it is locked
	}
	senders := st.startN(n)
	calls := beginAtOnce(senders, func(s int) request { return request{Op: "single flood", Key: key("app"), N: s} })
	for _, call := range calls {
		call.must()
	}
	next := make([]int, len(senders)) // the index of each sender's next message that has the text
	skip := func(s int) {             // skips messages without the text
		for next[s] < len(floodLengths) && floodLengths[next[s]] < 17 {
			next[s]++
		}
	}
	for s := range next {
		skip(s)
	}
	short := map[int]int{}
	total := len(senders) * len(floodLengths)
	for n := range total {
		m := app.message(n)
		var s, which int
		if len(m) < 17 {
			short[len(m)]++
			continue
		}
		if _, err := fmt.Sscanf(string(m[:17]), "%d/%d:", &s, &which); err != nil || s >= len(senders) {
			t.Fatalf("message %d begins with %q, want the numbers of a sender and a message", n, m[:17])
		}
		if which != next[s] {
			t.Fatalf("message %d of sender %d arrives, want %d", which, s, next[s])
		}
		if !bytes.Equal(m, floodMessage(s, which, floodLengths[which])) {
			t.Fatalf("message %d of sender %d arrives changed: %d bytes, want %d", which, s, len(m), floodLengths[which])
		}
		next[s]++
		skip(s)
	}
	if short[0] != 2*len(senders) || short[1] != len(senders) {
		t.Errorf("short messages: %v, want from each of %d senders two without a byte and one of one byte", short, len(senders))
	}
	if n := app.do(request{Op: "single count", Key: key("app")}).N; n != total {
		t.Errorf("%d messages arrived, want %d", n, total)
	}
	app.closeInstance()
	listening.must()
	st.wantFiles()
}

func TestSingleKilledInstanceIsReplacedAtOnce(t *testing.T) {
	st := newStore(t)
	p, sender := st.start(), st.start()
	p.acquire()
	for round := range 20 {
		var sent *pending
		if round%2 == 1 { // also while a sender is attached to the inbox
			sent = sender.goSend("to the killed instance")
			st.awaitInbox(1)
		}
		next := st.start()
		p.kill()
		next.acquire() // the first call succeeds
		if sent != nil {
			// The killed instance has not taken the message. Either the sender found no
			// instance in between, or the next instance gets the message.
			listening := next.listenForMessages()
			if _, err := sent.outcome(); err == nil {
				next.wantMessages("to the killed instance")
			} else {
				wantError(t, err, single.ErrNotRunning)
				next.wantMessages()
			}
			listening.cancel()
			listening.must()
		}
		p = next
	}
	p.closeInstance()
	st.wantFilesAfterSweep()
}

func TestSingleSendFailsWhenTheInstanceDies(t *testing.T) {
	st := newStore(t)
	app, a, b := st.start(), st.start(), st.start()
	app.acquire()
	first := a.goSend("not taken")
	st.awaitInbox(1)
	second := b.goSend("waits for its turn")
	st.awaitSenders(2)
	app.kill()
	for _, sent := range []*pending{first, second} {
		_, err := sent.outcome()
		wantError(t, err, single.ErrNotRunning)
	}
	_, err := a.try(sendRequest("without an instance"))
	wantError(t, err, single.ErrNotRunning)
	next := st.start()
	next.acquire()
	next.listenForMessages()
	a.send("hello")
	next.wantMessages("hello") // and none of the other messages
	next.closeInstance()
	st.wantFilesAfterSweep()
}

func TestSingleNextInstanceGetsNoPartOfAMessage(t *testing.T) {
	for _, replaced := range []bool{false, true} {
		t.Run(fmt.Sprintf("replaced=%v", replaced), func(t *testing.T) {
			st := newStore(t)
			app, a := st.start(), st.start()
			app.acquire()
			app.listenForMessages()
			sent := a.begin(longRequest())
			st.awaitInbox(5) // two pieces taken, of some thousand
			app.kill()
			if replaced {
				next := st.start()
				next.acquire()
				next.listenForMessages()
				defer func() {
					a.send("whole")
					next.wantMessages("whole")
					next.closeInstance()
				}()
			}
			_, err := sent.outcome()
			wantError(t, err, single.ErrNotRunning)
		})
	}
}

func TestSingleInstanceGetsNoPartOfAMessageWhoseSenderDied(t *testing.T) {
	st := newStore(t)
	app, other := st.start(), st.start()
	app.acquire()
	app.listenForMessages()
	var want []string
	for n := range 10 {
		before := st.inboxVersion()
		broken := st.start()
		broken.begin(longRequest())
		st.awaitInbox(before + 5 + uint32(n))
		broken.kill()
		m := fmt.Sprintf("whole %d ", n) + strings.Repeat("x", n*20_000)
		other.send(m)
		want = append(want, m)
	}
	app.wantMessages(want...)
	app.closeInstance()
	st.wantFilesAfterSweep()
}

// The sender dies after it has put a piece into the inbox, and before the unlock that would
// have woken the instance.
func TestSingleSenderThatDiesWithTheInboxLockDelaysNoOther(t *testing.T) {
	st := newStore(t)
	app, dying, other := st.start(), st.start(), st.start()
	app.acquire()
	app.listenForMessages()
	other.send("before")
	app.wantMessages("before") // so that the instance waits for the next piece
	inbox := dying.attach(inboxKey)
	inbox.lock()
	piece := make([]byte, 40) // state, and from 8 on: message, total, offset, length
	for at, v := range map[int]uint64{8: 77, 16: 1000, 24: 0, 32: 5} {
		binary.NativeEndian.PutUint64(piece[at:], v)
	}
	binary.NativeEndian.PutUint32(piece, 1) // full
	inbox.poke(0, string(piece))
	dying.kill()
	other.send("whole")
	app.wantMessages("before", "whole")
	app.closeInstance()
	st.wantFilesAfterSweep()
}

// Other senders wait, as long as their contexts allow, and go on when the stopped one
// continues or dies.
func TestSingleStoppedSenderKeepsItsTurn(t *testing.T) {
	needStop(t)
	for _, end := range []string{"continued", "killed"} {
		t.Run(end, func(t *testing.T) {
			st := newStore(t)
			app, stopped, other, patient := st.start(), st.start(), st.start(), st.start()
			app.acquire()
			sent := stopped.goSend("first") // the instance does not listen yet, so the sender keeps its turn
			st.awaitInbox(1)
			stopped.stop()
			listening := app.listenForMessages()
			app.wantMessages("first") // the instance takes the piece although its sender is stopped

			_, err := other.try(request{Op: "single send", Key: key("app"), Data: []byte("never"), Timeout: 100 * time.Millisecond})
			wantError(t, err, context.DeadlineExceeded)
			waiting := patient.goSend("second")
			st.awaitSenders(2)
			cancelled := other.goSend("never")
			st.awaitSenders(3)
			cancelled.cancel()
			_, err = cancelled.outcome()
			wantError(t, err, context.Canceled)
			if waiting.done() {
				t.Error("Send of another sender has returned before that of the stopped one")
			}

			if end == "killed" {
				stopped.kill()
			} else {
				stopped.cont()
				sent.must()
			}
			waiting.must()
			app.wantMessages("first", "second")
			app.closeInstance()
			listening.must()
			st.wantFilesAfterSweep()
		})
	}
}

// A stopped instance is alive: senders wait as long as their contexts allow, and then take
// their message back.
func TestSingleSendWaitsForAStoppedInstance(t *testing.T) {
	needStop(t)
	st := newStore(t)
	app, a, b := st.start(), st.start(), st.start()
	app.acquire()
	app.listenForMessages()
	a.send("before")
	app.stop()
	version := st.inboxVersion()
	lost := a.goSend("lost")
	st.awaitInbox(version + 1)
	lost.cancel()
	_, err := lost.outcome()
	wantError(t, err, context.Canceled)
	_, err = b.try(acquireRequest())
	wantError(t, err, single.ErrRunning)
	kept := b.goSend("kept")
	st.awaitInbox(version + 2)
	app.cont()
	kept.must()
	app.wantMessages("before", "kept")
	app.closeInstance()
	st.wantFilesAfterSweep()
}

func TestSingleInstanceGetsNoPartOfACancelledMessage(t *testing.T) {
	st := newStore(t)
	app, a := st.start(), st.start()
	app.acquire()
	app.listenForMessages()
	long := a.begin(longRequest())
	st.awaitInbox(5)
	long.cancel()
	_, err := long.outcome()
	wantError(t, err, context.Canceled)
	a.send("whole")
	app.wantMessages("whole")
	app.closeInstance()
	st.wantFiles()
}

func TestSingleSendFailsWhenTheInstanceClosesInTheMiddleOfAMessage(t *testing.T) {
	st := newStore(t)
	app, a := st.start(), st.start()
	app.acquire()
	listening := app.listenForMessages()
	long := a.begin(longRequest())
	st.awaitInbox(5)
	app.closeInstance()
	listening.must()
	_, err := long.outcome()
	wantError(t, err, single.ErrNotRunning)
	st.wantFiles()
}
