package shm

import (
	"os"
	"sync"
	"testing"
)

// FuzzHeaderOfOthers changes the header of a segment that another process is
// attached to, and whose pages this one maps: whoever may write the file can do
// that at any time. The calls that come anew succeed or fail, and so does what
// this process has: nothing panics or faults.
func FuzzHeaderOfOthers(f *testing.F) {
	if testing.Short() {
		f.Skip("a process for each of a hundred headers takes minutes under emulation")
	}
	add := func(off int, b ...byte) { f.Add(off, b) }
	for off := 0; off < slotsOff; off += 4 {
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

	// The other process serves all inputs of a worker: each has a key of its own
	// in its store, since the header of the last one may be past use.
	var other sync.Mutex
	f.Fuzz(func(t *testing.T, off int, b []byte) {
		if off < 0 || off >= minHeader || len(b) > minHeader-off {
			t.Skip()
		}
		other.Lock()
		defer other.Unlock()
		dir := dirAt(t, "/dev/shm")
		seg, err := Create(key, 100, Dir(dir))
		if err != nil {
			t.Fatal(err)
		}
		stop := attachedProcess(t, dir)
		defer stop()
		file, err := os.OpenFile(pathOf(dir, key), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		calls := outsiders(dir)
		calls["held"] = func() {
			if ok, _ := seg.TryLock(); ok {
				seg.Unlock()
			}
			seg.Info()
			seg.Version()
		}
		for name, call := range calls {
			if _, err := file.WriteAt(b, int64(off)); err != nil {
				t.Fatal(name, err)
			}
			call()
		}
		Remove(key, Dir(dir))
		seg.Close()
	})
}
