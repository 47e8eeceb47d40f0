package shm

import (
	"bytes"
	"context"
	"maps"
	"os"
	"sync"
	"testing"
	"time"

	"qshm/keymap"
)

// mayBeOurs reports whether content can be what a creator of this version has left, so
// that removing it is right.
func mayBeOurs(content []byte) bool {
	if len(content) == 0 {
		return true
	}
	if len(content) > 1 && len(content) <= minHeader && len(bytes.Trim(content[1:], "\x00")) == 0 {
		return true
	}
	page, h := headerBuffer(minHeader)
	copy(page[1:], content[1:])
	return h.magic == magic && h.format == formatVersion && h.order == byteOrder
}

// FuzzHeader gives every call a file with any bytes at its beginning, and of any size.
// The calls succeed or fail, but nothing panics or faults, and a file that is not
// recognizably a segment stays as it is.
func FuzzHeader(f *testing.F) {
	add := func(change func(h *header)) {
		b := made(f, change)
		f.Add(b[:slotsOff+2*slotSize], int64(len(b)))
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
		add(func(h *header) { h.locks = v })
		add(func(h *header) { h.refs.Store(v) })
		add(func(h *header) { h.size.Store(uint64(v)) })
		add(func(h *header) { h.size.Store(1<<63 + uint64(v)) })
		add(func(h *header) { h.size.Store(1<<64 - 1 - uint64(v)) })
		add(func(h *header) { h.word.Store(uint64(v) | uint64(v)<<32) })
		add(func(h *header) { h.event.Store(v) })
		add(func(h *header) { h.created = int64(v) << 32 })
	}
	add(func(h *header) { h.hash[31]++ })
	f.Add([]byte("Dear diary"), int64(10))
	f.Add([]byte{}, int64(0))
	f.Add([]byte{}, int64(1))
	f.Add([]byte{}, int64(minHeader))
	f.Add([]byte{}, int64(minHeader+1))
	f.Add([]byte{}, int64(5000))
	f.Add([]byte{'x'}, int64(1))
	f.Add(magic[:], int64(8))
	f.Add(magic[:], int64(1<<20))

	f.Fuzz(func(t *testing.T, beginning []byte, size int64) {
		if size < 0 || size > 1<<33 || len(beginning) > 2*minHeader {
			t.Skip()
		}
		dir := tempDir(t)
		path := segmentPath(dir, key)
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
		beginningOfFile := make([]byte, min(size, minHeader+1))
		copy(beginningOfFile, content)
		ours := mayBeOurs(beginningOfFile)
		calls := callsByKey(dir)
		calls["Remove"] = func() { Remove(key, Dir(dir)) }
		for name, call := range calls {
			leave()
			call()
			looks := name == "Stat" || name == "List"
			if ours && !looks {
				continue
			}
			info, err := os.Lstat(path)
			if err != nil || info.Size() != size {
				t.Fatalf("%s has removed or changed a file that is no segment: %v", name, err)
			}
			if now, _ := os.ReadFile(path); size < 1<<20 && !bytes.HasPrefix(now, content) {
				t.Fatalf("%s has changed a file that is no segment", name)
			}
		}
	})
}

// callsByKey are calls that find a file under the key.
func callsByKey(dir string) map[string]func() {
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

// use makes some calls with a segment, and detaches.
func use(seg *Segment, err error) {
	if err != nil {
		return
	}
	defer seg.Close()
	if ok, _ := seg.TryLock(); ok {
		seg.Unlock()
	}
	seg.Info()
	seg.Version()
	seg.Data()
}

// FuzzHeaderOfOthers changes the header of a segment that another process is attached
// to, and that this process has mapped: any process that may write the file can do that
// at any time. New calls, and calls of the attachments that exist, succeed or fail, or
// wait as long as their contexts allow; nothing panics or faults.
func FuzzHeaderOfOthers(f *testing.F) {
	n := 0
	add := func(off int, b ...byte) {
		if n++; n%4 == 0 || !testing.Short() { // each takes a second under wine
			f.Add(off, b)
		}
	}
	for off := 0; off < slotsOff; off += 4 {
		if off >= 64 && off < 96 || off >= 324 {
			continue // the hash, and the key
		}
		add(off, 0xff, 0xff, 0xff, 0xff)
		add(off, 0, 0, 0, 0)
		add(off, 1, 0, 0, 0x80, 0xff, 0xff)
	}
	for i := range 3 {
		for off := 0; off < slotSize; off += 4 {
			add(slotsOff+i*slotSize+off, 0xff, 1, 2, 3)
			add(slotsOff+i*slotSize+off, 0, 0, 0, 0)
		}
	}
	add(0, make([]byte, minHeader)...)
	add(136, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	add(136, 0, 0, 0, 0, 0, 0, 0, 0x80)
	add(192, 3, 0, 0, 0x20)
	add(192, 1, 0, 0, 0xc0)

	// The header of the last input may be past use, so each input has a store of its
	// own.
	var one sync.Mutex
	f.Fuzz(func(t *testing.T, off int, b []byte) {
		if off < 0 || off >= minHeader || len(b) > minHeader-off {
			t.Skip()
		}
		one.Lock()
		defer one.Unlock()
		dir := tempDir(t)
		t.Setenv(keymap.EnvDir, dir)
		seg := must(Create(key, 100))(t)
		reader, second := must(Attach(key, ReadOnly()))(t), must(Attach(key))(t)
		peer := otherProcess(t, seg)
		must(peer.m.view(false))(t)
		file := must(os.OpenFile(segmentPath(dir, key), os.O_RDWR, 0))(t)
		defer file.Close()
		calls := callsByKey(dir)
		maps.Copy(calls, map[string]func(){
			"a second attachment": func() { useAll(second) },
			"the creator":         func() { useAll(seg) },
			"a reader":            func() { useAll(reader) },
			"another process":     func() { useAll(peer) },
		})
		for name, call := range calls {
			if _, err := file.WriteAt(b, int64(off)); err != nil {
				t.Fatal(name, err)
			}
			call()
		}
		if _, err := file.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
		file.Close() // Windows removes no file that another program has open
		Remove(key)
		for _, s := range []*Segment{second, reader, peer, seg} {
			s.Close()
		}
	})
}

// useAll makes all calls with an attachment, whatever they report.
func useAll(seg *Segment) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	if seg.LockContext(ctx) == nil {
		seg.Abandoned()
		seg.Unlock()
	}
	if ok, _ := seg.TryLock(); ok {
		seg.Unlock()
		// What has no context waits for the lock only as long as another has it.
		seg.View(nothing)
		seg.Update(nothing)
		seg.UpdateWhen(ctx, func([]byte) bool { return true }, nothing)
		seg.WriteAt([]byte("x"), 0)
		seg.ReadAt(make([]byte, 10), 0)
		seg.Snapshot(make([]byte, 200))
		Load[int32](seg, 0)
		Store(seg, 0, int32(1))
	}
	seg.Wait(ctx, seg.Version())
	seg.Info()
	seg.ID()
	seg.Grow(len(seg.Data()) + 100)
	Value[int32](seg, 0)
	for _, b := range seg.Data() {
		_ = b
	}
}
