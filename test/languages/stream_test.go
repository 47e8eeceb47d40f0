package languages

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

// Streams: the program in C sends, the one in Python follows.

// Offsets of the header of a stream.
const (
	wantedOffset  = 192
	cursorsOffset = 2880
)

func openStream(t *testing.T, capacity int) *stream.Stream {
	t.Helper()
	s, err := stream.Open(key, capacity)
	check(t, err)
	t.Cleanup(func() { s.Close() })
	return s
}

func subscribe(t *testing.T, s *stream.Stream, opts ...stream.Option) *stream.Subscription {
	t.Helper()
	sub, err := s.Subscribe(opts...)
	check(t, err)
	return sub
}

// childSubscribes subscribes, and reads one message, which it keeps.
func childSubscribes(key, group string) error {
	s, err := stream.Open(key, 64)
	if err != nil {
		return err
	}
	defer s.Close()
	opts := []stream.Option{stream.FromOldest()}
	if group != "" {
		opts = append(opts, stream.Group(group))
	}
	sub, err := s.Subscribe(opts...)
	if err != nil {
		return err
	}
	message, err := sub.Next(context.Background())
	if err != nil {
		return err
	}
	fmt.Printf("%s\n", message)
	io.Copy(io.Discard, os.Stdin)
	return nil
}

// inTime is a context for calls that should not wait for long.
func inTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

func send(t *testing.T, s *stream.Stream, messages ...string) {
	t.Helper()
	for _, m := range messages {
		check(t, s.Send(inTime(t), []byte(m)))
	}
}

func wantNext(t *testing.T, sub *stream.Subscription, want ...string) {
	t.Helper()
	for _, w := range want {
		got, err := sub.Next(inTime(t))
		if err != nil || string(got) != w {
			t.Fatalf("Next returns %q, %v, want %q", got, err, w)
		}
	}
}

// done says that the messages so far were read.
func done(t *testing.T, sub *stream.Subscription) {
	t.Helper()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if m, err := sub.Next(over); !errors.Is(err, context.Canceled) {
		t.Fatalf("Next returns %q, %v", m, err)
	}
}

// follow starts the program in Python and waits until it has its cursor.
func follow(t *testing.T, s *stream.Stream, args ...string) *process {
	t.Helper()
	seg, err := shm.Attach(key)
	check(t, err)
	defer seg.Close()
	info, err := s.Info()
	check(t, err)
	p := start(t, pythonFollower, append([]string{"follow", key}, args...)...)
	ctx := inTime(t)
	for readers := len(info.Readers); len(info.Readers) == readers; {
		version := seg.Version()
		if info, err = s.Info(); err == nil && len(info.Readers) == readers {
			_, err = seg.Wait(ctx, version)
		}
		if err != nil {
			p.kill()
			t.Fatalf("no reader in Python: %v\n%s", err, &p.stderr)
		}
	}
	return p
}

// write writes lines to the standard input.
func (p *process) write(lines ...string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, strings.Join(lines, "\n")+"\n"); err != nil {
		code := p.kill()
		p.t.Fatalf("%v does not read: %v, status %d\n%s", p.cmd.Args, err, code, &p.stderr)
	}
}

func (p *process) wantLines(want ...string) {
	p.t.Helper()
	for _, w := range want {
		p.wantLine(w)
	}
}

// texts returns n messages of lengths up to the longest.
func texts(name string, n, longest int) (all []string) {
	for i := range n {
		text := fmt.Sprintf("%s%d", name, i)
		all = append(all, text+strings.Repeat(".", (7*i)%(longest-len(text)+1)))
	}
	return all
}

// The ring is smaller than what is sent: the writer waits for the reader.
func TestPythonFollowsGo(t *testing.T) {
	store(t)
	s := openStream(t, 256)
	send(t, s, "first", "", "x")
	p := follow(t, s, "oldest")
	all := texts("m", 400, s.MaxMessage())
	send(t, s, all...)
	check(t, s.Close())
	p.wantLines("first", "", "x")
	p.wantLines(all...)
	p.wantEnd("")
}

func TestPythonFollowsFromNow(t *testing.T) {
	store(t)
	s := openStream(t, 4096)
	send(t, s, "before")
	p := follow(t, s, "now", "--count", "2")
	send(t, s, "one", "two", "three")
	p.wantLines("one", "two")
	p.wantEnd("")
	// It has given back its cursor and its slot.
	seg := attach(t, key)
	cursor, err := shm.Value[atomic.Uint64](seg, cursorsOffset)
	check(t, err)
	if owner, n := cursor.Load(), refs(t, seg); owner != 0 || n != 2 {
		t.Errorf("the cursor has the owner %#x, the reference count is %d", owner, n)
	}
}

// Python prints a message that is longer than a pipe holds. The next ones pass by until
// somebody reads it.
func TestPythonSaysWhatWasLost(t *testing.T) {
	store(t)
	s := openStream(t, 1<<20)
	p := follow(t, s, "newest")
	long := strings.Repeat("long", 1<<16)
	send(t, s, long)
	if _, err := p.out.Peek(1); err != nil {
		t.Fatal(err)
	}
	send(t, s, texts("m", 10, 10)...)
	p.wantLines(long, "lost 9", texts("m", 10, 10)[9])
	check(t, s.Close())
	p.wantEnd("")
}

func TestPythonTellsTheWriterThatWaits(t *testing.T) {
	store(t)
	s := openStream(t, 4096)
	p := follow(t, s, "now", asLongAsItTakes)
	send(t, s, "12345678") // 16 bytes of the ring
	p.wantLine("12345678")
	seg := attach(t, key)
	wanted, err := shm.Value[atomic.Uint64](seg, wantedOffset)
	check(t, err)
	waitsForChange(t, seg)
	wanted.Store(32 + 1)
	before := seg.Version()
	send(t, s, "12345678")
	p.wantLine("12345678")
	for version := before; version != before+2; {
		if version, err = seg.Wait(inTime(t), version); err != nil {
			t.Fatalf("version %d, wanted %d: %v", version-before, wanted.Load(), err)
		}
	}
	if w := wanted.Load(); w != 0 {
		t.Errorf("wanted is %d", w)
	}
	check(t, s.Close())
	p.wantEnd("")
}

// As long as nobody reads what Python prints, it is behind; until it is killed.
func TestPythonFollowerKilledHoldsNobodyUp(t *testing.T) {
	store(t)
	s := openStream(t, 1<<18)
	p := follow(t, s)
	message := bytes.Repeat([]byte{'x'}, 1<<14)
	for {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := s.Send(ctx, message)
		cancel()
		if err == nil {
			continue
		}
		if want := fmt.Sprintf("the reader in process %d is ", p.cmd.Process.Pid); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), want) {
			t.Errorf("Send: %v, want %q", err, want)
		}
		break
	}
	p.kill()
	for range 100 {
		check(t, s.Send(inTime(t), message))
	}
}

func TestCSendsToGoAndPython(t *testing.T) {
	for name, opts := range map[string][]stream.Option{
		"every message": {stream.FromOldest()},
		"group":         {stream.FromOldest(), stream.Group("g")},
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			s := openStream(t, 256)
			sub := subscribe(t, s, opts...)
			p := follow(t, s)
			all := texts("m", 300, s.MaxMessage())
			sender := start(t, cProgram, "send", key)
			sender.write(all...)
			check(t, sender.in.Close())
			wantNext(t, sub, all...)
			if m, err := sub.Next(inTime(t)); err != io.EOF {
				t.Errorf("C has closed: %q, %v", m, err)
			}
			sender.wantEnd("")
			p.wantLines(all...)
			p.wantEnd("")
			if info, err := s.Info(); err != nil || info.Sent != 300 || info.Writers != 0 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

func TestCWakesThoseThatWait(t *testing.T) {
	store(t)
	s := openStream(t, 4096)
	sub := subscribe(t, s)
	p := follow(t, s, "now", asLongAsItTakes)
	sender := start(t, cProgram, "send", key)
	seg := attach(t, key)
	for _, m := range texts("m", 5, 20) {
		waitsForChange(t, seg)
		sender.write(m)
		p.wantLine(m)
		wantNext(t, sub, m)
	}
	waitsForChange(t, seg)
	sender.wantEnd("")
	p.wantEnd("")
}

func TestCSaysThatItWaits(t *testing.T) {
	store(t)
	s := openStream(t, 256)
	sub := subscribe(t, s)
	sender := start(t, cProgram, "send", key)
	all := texts("m", 30, 100)
	sender.write(all...)
	seg := attach(t, key)
	wanted, err := shm.Value[atomic.Uint64](seg, wantedOffset)
	check(t, err)
	for ctx := inTime(t); wanted.Load() == 0; runtime.Gosched() {
		check(t, ctx.Err())
	}
	wantNext(t, sub, all...)
	sender.wantEnd("")
}

// A reader in Go is killed while C waits for it.
func TestCReapsADeadReader(t *testing.T) {
	for _, group := range []string{"", "g"} {
		t.Run("group="+group, func(t *testing.T) {
			store(t)
			s := openStream(t, 256)
			send(t, s, "first")
			reader := start(t, goProgram, "subscribe", key, group)
			reader.wantLine("first")
			sender := start(t, cProgram, "send", key)
			sender.write(texts("m", 30, 100)...)
			seg := attach(t, key)
			wanted, err := shm.Value[atomic.Uint64](seg, wantedOffset)
			check(t, err)
			for ctx := inTime(t); wanted.Load() == 0; runtime.Gosched() {
				check(t, ctx.Err())
			}
			reader.kill()
			sender.wantEnd("")
			if info, err := s.Info(); err != nil || info.Sent != 31 {
				t.Errorf("%+v, %v", info, err)
			}
		})
	}
}

// Several writers in both languages: a reader gets the messages of each in order.
func TestGoAndCSendAtOnce(t *testing.T) {
	store(t)
	const n = 300
	s := openStream(t, 512)
	sub := subscribe(t, s)
	p := follow(t, s)
	sent := make(chan error)
	names := []string{"a", "b", "go"}
	for _, name := range names[:2] {
		sender := start(t, cProgram, "send", key)
		sender.write(texts(name, n, 40)...)
		check(t, sender.in.Close())
	}
	go func() {
		var err error
		for _, m := range texts("go", n, 40) {
			err = errors.Join(err, s.Send(t.Context(), []byte(m)))
		}
		sent <- err
	}()
	rest := map[string][]string{}
	for _, name := range names {
		rest[name] = texts(name, n, 40)
	}
	for i := range n * len(names) {
		m, err := sub.Next(inTime(t))
		check(t, err)
		found := false
		for _, name := range names {
			if len(rest[name]) > 0 && rest[name][0] == string(m) {
				rest[name], found = rest[name][1:], true
			}
		}
		if !found {
			t.Fatalf("message %d is %q", i, m)
		}
		p.wantLine(string(m))
	}
	check(t, <-sent)
}

// C is killed before a step of sending a message, which needs padding and room. Before
// the tail is written, it has sent nothing; afterwards, everything.
func TestCDiesInSend(t *testing.T) {
	text := strings.Repeat("c", 24)
	eachStep(t, "take writer opened head padding record tail sent unlock wake close notify release_word", func(t *testing.T, step string) {
		store(t)
		s := openStream(t, 64)
		sub := subscribe(t, s)
		send(t, s, "8 bytes.", "these are 16....")
		wantNext(t, sub, "8 bytes.", "these are 16....")
		done(t, sub)
		p := follow(t, s)
		dieAt(t, step, text+"\n", "send", key)
		info, err := s.Info()
		check(t, err)
		switch step {
		case "take", "writer", "opened", "head", "padding", "record", "tail":
			if info.Sent != 2 {
				t.Errorf("%d messages", info.Sent)
			}
		default:
			wantNext(t, sub, text)
			p.wantLine(text)
			done(t, sub)
		}
		send(t, s, "next")
		wantNext(t, sub, "next")
		p.wantLine("next")
	})
}

// The former writer has died with the lock. A new reader takes the lock over.
func TestPythonSubscribesAfterADeath(t *testing.T) {
	store(t)
	s := openStream(t, 4096)
	send(t, s, "before")
	dieAt(t, "record", "lost\n", "send", key)
	p := start(t, pythonFollower, "follow", key, "oldest", "--count", "1")
	p.wantEnd("before\n")
	if info, err := s.Info(); err != nil || info.Sent != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestReadersLearnThatCDied(t *testing.T) {
	store(t)
	s := openStream(t, 4096)
	sub := subscribe(t, s)
	p := follow(t, s, "now", "0.01")
	sender := start(t, cProgram, "send", key)
	sender.write("one")
	wantNext(t, sub, "one")
	p.wantLine("one")
	sender.kill()
	if m, err := sub.Next(inTime(t)); !errors.Is(err, stream.ErrWriterDied) {
		t.Errorf("Go: %q, %v", m, err)
	}
	if output, status := p.end(); output != "" || status != 4 {
		t.Errorf("Python: %q, status %d\n%s", output, status, &p.stderr)
	}
}

func TestOtherSegmentsAreNoStreams(t *testing.T) {
	store(t)
	seg := create(t, key, 20000)
	for _, c := range []struct {
		by   program
		args []string
	}{{pythonFollower, []string{"follow", key}}, {cProgram, []string{"send", key}}} {
		p := start(t, c.by, c.args...)
		if output, status := p.end(); output != "" || status != 1 || !strings.Contains(p.stderr.String(), "no stream") {
			t.Errorf("%v: %q, status %d\n%s", p.cmd.Args, output, status, &p.stderr)
		}
	}
	if info, err := seg.Info(); err != nil || info.Attached != 1 || !bytes.Equal(seg.Data(), make([]byte, 20000)) {
		t.Errorf("afterwards: %+v, %v", info, err)
	}
}
