package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"qshm/shm"
	"qshm/shm/stream"
)

// Random calls of several processes' ends of a stream, beside a list of all messages
// and the place of each reader in it.

type modelReader struct {
	sub    *stream.Subscription
	next   int // the index of the next message; of a member, the group has it
	group  string
	latest bool
	lost   int // of a reader with Latest
	holds  int // the message that a member has; -1: none
}

type model struct {
	streams []*stream.Stream
	sent    [][]byte
	readers []*modelReader
	groups  map[string]int
}

// floor returns the oldest message that a reader holds the writers up with.
func (m *model) floor() int {
	floor := len(m.sent)
	for _, r := range m.readers {
		switch {
		case r.latest:
		case r.group != "":
			if floor = min(floor, m.groups[r.group]); r.holds >= 0 {
				floor = min(floor, r.holds)
			}
		default:
			floor = min(floor, max(0, r.next-1)) // it may hold the last one
		}
	}
	return floor
}

func TestModel(t *testing.T) {
	dir := t.TempDir()
	n := 0
	rapid.Check(t, func(t *rapid.T) {
		n++
		const capacity = 512
		m := model{groups: map[string]int{}}
		for range 3 {
			s, err := stream.Open(fmt.Sprint(n), capacity, shm.Dir(dir))
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			m.streams = append(m.streams, s)
		}
		pick := func() *stream.Stream { return rapid.SampledFrom(m.streams).Draw(t, "stream") }
		reader := func() *modelReader {
			if len(m.readers) == 0 {
				t.Skip("no reader")
			}
			return rapid.SampledFrom(m.readers).Draw(t, "reader")
		}
		send := func(t *rapid.T) {
			message := rapid.SliceOfN(rapid.Byte(), 0, 60).Draw(t, "message")
			s := pick()
			// With room for all that the readers may not have read yet, Send must not
			// wait; else it may.
			used := 0
			for _, b := range m.sent[m.floor():] {
				used += 8 + (len(b)+7)/8*8
			}
			waits := used+2*(8+64)+capacity/8 > capacity
			limit := 10 * time.Second
			if waits {
				limit = time.Millisecond
			}
			short, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			var err error
			if rapid.Bool().Draw(t, "in place") {
				var r *stream.Reservation
				if r, err = s.Reserve(short, len(message)); err == nil {
					copy(r.Bytes(), message)
					if rapid.IntRange(0, 3).Draw(t, "abort") == 0 {
						if err := r.Abort(); err != nil {
							t.Fatal(err)
						}
						return
					}
					err = r.Commit()
				}
			} else {
				err = s.Send(short, message)
			}
			switch {
			case err == nil:
				m.sent = append(m.sent, message)
			case !waits:
				t.Fatalf("Send with %d bytes in use: %v", used, err)
			}
		}
		next := func(t *rapid.T) {
			r := reader()
			at := r.next
			if r.group != "" {
				at = m.groups[r.group]
			}
			limit := 10 * time.Second
			if at == len(m.sent) {
				limit = time.Millisecond
			}
			short, cancel := context.WithTimeout(ctx, limit)
			defer cancel()
			got, err := r.sub.Next(short)
			r.holds = -1
			if at == len(m.sent) {
				if err == nil {
					t.Fatalf("a message %q that nobody has sent", got)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if r.latest {
				r.lost += len(m.sent) - 1 - at
				at = len(m.sent) - 1
				if got := r.sub.Lost(); got != uint64(r.lost) {
					t.Fatalf("lost %d, want %d", got, r.lost)
				}
			}
			if !bytes.Equal(got, m.sent[at]) || r.sub.Redelivered() {
				t.Fatalf("message %d is %q, want %q", at, got, m.sent[at])
			}
			if r.next = at + 1; r.group != "" {
				m.groups[r.group], r.holds = at+1, at
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"send": send, "send again": send, "next": next, "next again": next,
			"subscribe": func(t *rapid.T) {
				if len(m.readers) == 5 {
					t.Skip("enough")
				}
				r := &modelReader{next: len(m.sent), holds: -1}
				var opts []stream.Option
				switch rapid.IntRange(0, 3).Draw(t, "kind") {
				case 0:
					r.latest, opts = true, append(opts, stream.Latest())
				case 1:
					r.group = rapid.SampledFrom([]string{"a", "b"}).Draw(t, "group")
					opts = append(opts, stream.Group(r.group))
					if _, exists := m.groups[r.group]; !exists { // else it has a member: members stay
						m.groups[r.group] = len(m.sent)
					}
				}
				sub, err := pick().Subscribe(opts...)
				if err != nil {
					t.Fatal(err)
				}
				r.sub = sub
				m.readers = append(m.readers, r)
			},
			"close": func(t *rapid.T) {
				r := reader()
				if r.group != "" {
					t.Skip("members stay")
				}
				if err := r.sub.Close(); err != nil {
					t.Fatal(err)
				}
				m.readers = slices.DeleteFunc(m.readers, func(o *modelReader) bool { return o == r })
			},
		})
	})
}
