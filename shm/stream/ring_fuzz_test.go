package stream_test

import (
	"context"
	"encoding/binary"
	"testing"
	"time"

	"qshm/shm"
	"qshm/shm/stream"
)

// FuzzRing overwrites a word of the header or the ring, as any process may that can
// write the file. Calls succeed, fail or wait as long as their contexts allow; nothing
// panics, faults or loops for ever.
func FuzzRing(f *testing.F) {
	for off := uint16(0); off < 1<<9; off += 8 {
		f.Add(off, uint64(1<<64-1))
		f.Add(off, uint64(1<<63+8))
	}
	for off := uint16(0); off < 32; off++ {
		for _, v := range []uint64{0, 7, 1 << 31, 1<<32 - 1, 1 << 60, 1<<64 - 8} {
			f.Add(ringOff/8+off, v)            // records
			f.Add((320+512)/8+off, v)          // groups
			f.Add((320+512+16*128)/8+off, v)   // cursors
			f.Add(tailOff/8+off, uint64(v)|16) // positions
		}
	}
	f.Fuzz(func(t *testing.T, word uint16, v uint64) {
		off := int(word) * 8
		if off > ringOff+256-8 {
			t.Skip()
		}
		dir := t.TempDir()
		w, s := open(t, dir, 256), open(t, dir, 256)
		subs := []*stream.Subscription{subscribe(t, s), subscribe(t, s, stream.Latest()), subscribe(t, s, stream.Group("g"))}
		data := ringWords(t, dir)
		send(t, w, "one", "two")
		for range 3 {
			binary.NativeEndian.PutUint64(data[off:], v)
			short, cancel := context.WithTimeout(ctx, time.Millisecond)
			w.Send(short, make([]byte, 40))
			for _, sub := range subs {
				sub.Next(short)
			}
			w.Flush(short)
			w.AwaitReader(short)
			w.Info()
			stream.Stat("s", shm.Dir(dir))
			if other, err := stream.Open("s", 256, shm.Dir(dir)); err == nil {
				if sub, err := other.Subscribe(stream.Group("g"), stream.FromOldest()); err == nil {
					sub.Next(short)
				}
				other.Close()
			}
			cancel()
		}
	})
}
