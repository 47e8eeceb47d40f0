//go:build linux

package main

import "fmt"

// spinPeer shows the least time that a message takes between two running processes: there
// is one slot and a word, on which the reader spins.
var spinPeer = goPeer{"spin", "spinning reader, one slot", "", map[string]func(*worker) error{
	"messages": spinMessages,
}}

func spinMessages(w *worker) error {
	size := w.number("size", 64)
	t, err := openTalk(w, size)
	if err != nil {
		return err
	}
	defer t.close()
	slot, b := t.s.Data()[channelSize:], make([]byte, size)
	n, warm, send := w.number("n", 100), w.number("warm", 2), w.number("create", 0) == 1
	there, back := &t.c.side[0].word, &t.c.side[1].word
	return w.measure(func(int64) (figures, error) {
		begin, pace := w.now(), newPace(n, w.number("slots", 2))
		for i := 1; i <= n+warm; i++ {
			if i == warm+1 {
				begin = w.now()
				pace.start()
			}
			if send {
				for back.Load() != uint32(i-1) {
				}
				mark(b, int64(i))
				copy(slot, b)
				there.Store(uint32(i))
				continue
			}
			for there.Load() != uint32(i) {
			}
			if !marked(slot, int64(i)) {
				return figures{}, fmt.Errorf("message %d arrived damaged", i)
			}
			back.Store(uint32(i))
			if i > warm {
				pace.step()
			}
		}
		return figures{N: int64(n), Begin: begin, End: w.now(), Op: pace.each()}, nil
	})
}
