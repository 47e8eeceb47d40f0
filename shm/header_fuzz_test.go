package shm

import (
	"bytes"
	"os"
	"testing"
)

// ours reports whether content can be what a creator of this version left, so
// that removing it is right.
func ours(content []byte) bool {
	if len(content) == 0 {
		return true
	}
	head := content[1:min(len(content), minHeader)]
	if len(content) > 1 && len(bytes.Trim(head, "\x00")) == 0 {
		return true
	}
	page, h := headerBuffer(minHeader)
	copy(page[1:], head)
	return h.magic == magic && h.format == formatVersion && h.order == byteOrder
}

// FuzzHeader gives every call a file with any bytes at the beginning, and of any
// size: they succeed or fail, but nothing panics or faults, and what is not
// recognisably ours stays as it is.
func FuzzHeader(f *testing.F) {
	add := func(change func(h *header)) {
		s := must(newShape(100, 0))(f)
		page := s.fresh(key)
		h := headerAt(page)
		h.state.Store(stateLive)
		change(h)
		f.Add(append(page, make([]byte, 2*slotSize)...), int64(s.dataOff+s.size))
	}
	add(func(*header) {})
	for state := range uint32(5) {
		add(func(h *header) { h.state.Store(state) })
	}
	for _, v := range []uint32{0, 1, 2, 4095, 4096, 8192, 65536, 1 << 31, 1<<32 - 4096, 1<<32 - 1} {
		add(func(h *header) { h.dataOff = v })
		add(func(h *header) { h.slots = v })
		add(func(h *header) { h.dataOff, h.slots = v, v })
		add(func(h *header) { h.keyLen = v })
		add(func(h *header) { h.format = v })
		add(func(h *header) { h.order = v })
		add(func(h *header) { h.refs.Store(v) })
		add(func(h *header) { h.size = uint64(v) })
		add(func(h *header) { h.size = 1<<63 + uint64(v) })
		add(func(h *header) { h.size = 1<<64 - 1 - uint64(v) })
		add(func(h *header) { h.word.Store(uint64(v) | uint64(v)<<32) })
		add(func(h *header) { h.bell.Store(v) })
		add(func(h *header) { h.created = int64(v) << 32 })
	}
	add(func(h *header) { h.hash[31]++ })
	f.Add([]byte("Dear diary"), int64(10))
	f.Add([]byte{}, int64(0))
	f.Add([]byte{}, int64(5000))
	f.Add([]byte{'x'}, int64(1))
	f.Add(magic[:], int64(8))
	f.Add(magic[:], int64(1<<20))

	f.Fuzz(func(t *testing.T, beginning []byte, size int64) {
		if size < 0 || size > 1<<33 || len(beginning) > 2*minHeader {
			t.Skip()
		}
		dir := dirAt(t, "/dev/shm")
		path := pathOf(dir, key)
		content := beginning[:min(int64(len(beginning)), size)]
		leave := func() {
			t.Helper()
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Truncate(path, size); err != nil {
				t.Skip("no files of that size here:", err)
			}
		}
		filled := content
		if size > int64(len(content)) {
			filled = make([]byte, min(size, minHeader))
			copy(filled, content)
		}
		mine := ours(filled)
		calls := outsiders(dir)
		calls["Remove"] = func() { Remove(key, Dir(dir)) }
		for name, call := range calls {
			leave()
			call()
			looks := name == "Stat" || name == "List"
			if mine && !looks {
				continue
			}
			info, err := os.Lstat(path)
			if err != nil || info.Size() != size {
				t.Fatalf("%s has removed or changed what is not ours: %v", name, err)
			}
			if now, _ := os.ReadFile(path); size < 1<<20 && !bytes.HasPrefix(now, content) {
				t.Fatalf("%s has changed what is not ours", name)
			}
		}
	})
}

// outsiders are calls that find what stands under the key.
func outsiders(dir string) map[string]func() {
	return map[string]func(){
		"Attach": func() { use(Attach(key, Dir(dir))) },
		"Create": func() { use(Create(key, 10, Dir(dir))) },
		"Open": func() {
			seg, _, err := Open(key, 10, Dir(dir))
			use(seg, err)
		},
		"Stat":  func() { Stat(key, Dir(dir)) },
		"List":  func() { List(Dir(dir)) },
		"Sweep": func() { Sweep(Dir(dir)) },
	}
}

// use uses a segment a little.
func use(seg *Segment, err error) {
	if err != nil {
		return
	}
	seg.TryLock()
	seg.Info()
	seg.Version()
	seg.Close()
}
