package shm

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

const key = "a key"

// byKey are the calls that lead to a key.
var byKey = []struct {
	op   string
	call func(key string, opts ...Option) error
}{
	{"create", func(key string, opts ...Option) error {
		seg, err := Create(key, 100, opts...)
		return closing(seg, err)
	}},
	{"attach", func(key string, opts ...Option) error {
		seg, err := Attach(key, opts...)
		return closing(seg, err)
	}},
	{"open", func(key string, opts ...Option) error {
		seg, _, err := Open(key, 100, opts...)
		return closing(seg, err)
	}},
	{"stat", func(key string, opts ...Option) error { _, err := Stat(key, opts...); return err }},
	{"remove", Remove},
}

func closing(seg *Segment, err error) error {
	if seg != nil {
		seg.Close()
	}
	return err
}

func TestEmptyKey(t *testing.T) {
	store(t)
	for _, c := range byKey {
		wantError(t, c.call(""), c.op, "", ErrKey)
	}
}

func TestImpossibleSizes(t *testing.T) {
	dir := store(t)
	for _, size := range []int{0, -1, math.MinInt, math.MaxInt, math.MaxInt - 4095} {
		_, err := Create(key, size)
		wantError(t, err, "create", key, ErrSize)
		_, created, err := Open(key, size)
		wantError(t, err, "open", key, ErrSize)
		if left := files(t, dir); created || len(left) != 0 {
			t.Errorf("size %d: created %v, left %v", size, created, left)
		}
	}
}

func TestMoreMemoryThanThereIs(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("32 bits address no more than there may be")
	}
	dir := store(t)
	for _, size := range []int{math.MaxInt / 2, math.MaxInt / 1024 / 1024} {
		_, err := Create(key, size)
		wantError(t, err, "create", key, ErrNoSpace)
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
}

func TestSparseBeyondTheAddressSpace(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("every int is an address here")
	}
	dir := store(t)
	_, err := Create(key, math.MaxInt/4, Sparse())
	if wantError(t, err, "create", key); !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrSize) {
		t.Errorf("%v: want ErrNoSpace or ErrSize", err)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func TestImpossibleNumbersOfAttachments(t *testing.T) {
	dir := store(t)
	for _, n := range []int{0, -1, math.MinInt, maxSlots + 1, math.MaxInt} {
		_, err := Create(key, 1, MaxAttachments(n))
		wantError(t, err, "create", key, ErrSize)
		if left := files(t, dir); len(left) != 0 {
			t.Errorf("left %v", left)
		}
	}
}

func TestKeyThatIsTaken(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	copy(seg.Data(), "mine")
	lock(t, seg)
	_, err := Create(key, 200)
	wantError(t, err, "create", key, ErrExist, fs.ErrExist)
	if ok, _ := seg.TryLock(); ok || string(seg.Data()[:4]) != "mine" || seg.Size() != 100 {
		t.Error("it has changed, or lost its lock")
	}
}

func TestKeyThatNobodyHas(t *testing.T) {
	dir := store(t)
	for _, c := range byKey {
		if c.op == "create" || c.op == "open" {
			continue
		}
		wantError(t, c.call(key), c.op, key, ErrNotExist, fs.ErrNotExist)
	}
	if left := files(t, dir); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

// wholeStore are the calls about a store.
func wholeStore(opts ...Option) map[string]error {
	_, list := List(opts...)
	_, sweep := Sweep(opts...)
	return map[string]error{"list": list, "sweep": sweep}
}

func TestStoreThatIsAFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(file)), c.op, key)
	}
	for op, err := range wholeStore(Dir(file)) {
		wantError(t, err, op, "")
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Error("it has changed")
	}
}

func TestStoreThatIsASymbolicLink(t *testing.T) {
	target, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Skip("no link was made, though wine said so:", err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(link)), c.op, key)
	}
	for op, err := range wholeStore(Dir(link)) {
		wantError(t, err, op, "")
	}
	if left := files(t, target); len(left) != 0 {
		t.Errorf("left %v", left)
	}
}

func needUser(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("may write everywhere")
	}
}

func TestStoreThatIsNotWritable(t *testing.T) {
	needUser(t)
	dir := t.TempDir()
	os.Chmod(dir, 0o500)
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	_, err := Create(key, 100, Dir(dir))
	wantError(t, err, "create", key, ErrPermission, fs.ErrPermission)
	_, _, err = Open(key, 100, Dir(dir))
	wantError(t, err, "open", key, ErrPermission)
}

func TestSegmentThatMayNotBeOpened(t *testing.T) {
	needUser(t)
	dir := store(t)
	seg := create(t, key, 100)
	path := pathOf(dir, key)
	os.Chmod(path, 0)
	_, err := Stat(key)
	wantError(t, err, "stat", key, ErrPermission, fs.ErrPermission)
	wantError(t, Remove(key), "remove", key, ErrPermission)
	list := must(List())(t)
	if len(list) != 1 || list[0].Status != StatusUnknown || list[0].Path != path {
		t.Errorf("List: %+v", list)
	}
	os.Chmod(path, 0o600)
	detach(t, seg)
}

// foreign are contents of files that are no segments.
func foreign(t *testing.T) map[string][]byte {
	valid := func(change func(*header)) []byte {
		s := must(newShape(100, 0))(t)
		page := s.fresh(key)
		b := make([]byte, s.dataOff+s.size)
		copy(b, page)
		headerAt(b).state.Store(stateLive)
		change(headerAt(b))
		return b
	}
	return map[string][]byte{
		"text":             []byte("Dear diary"),
		"one byte":         {1},
		"text after zeros": append(make([]byte, 100), "text"...),
		"magic alone":      magic[:],
		"truncated header": valid(func(*header) {})[:200],
		"truncated data":   valid(func(*header) {})[:max(minHeader, mapAlign())+99],
		"no data":          valid(func(*header) {})[:max(minHeader, mapAlign())],
		"newer format":     valid(func(h *header) { h.format++ }),
		"older format":     valid(func(h *header) { h.format = 0 }),
		"other byte order": valid(func(h *header) { h.order = 0x04030201 }),
		"other magic":      valid(func(h *header) { h.magic[1] = 'x' }),
		"no size":          valid(func(h *header) { h.size = 0 }),
		"size of all":      valid(func(h *header) { h.size = math.MaxUint64 }),
		"size overflows":   valid(func(h *header) { h.size = math.MaxInt64 }),
		"no slots":         valid(func(h *header) { h.slots = 0 }),
		"too many slots":   valid(func(h *header) { h.slots = 100000 }),
		"slots in data":    valid(func(h *header) { h.slots = uint32((int(h.dataOff)-slotsOff)/slotSize) + 1 }),
		"all slots":        valid(func(h *header) { h.slots = math.MaxUint32 }),
		"header too small": valid(func(h *header) { h.dataOff = 512 }),
		"no header":        valid(func(h *header) { h.dataOff = 0 }),
		"header too large": valid(func(h *header) { h.dataOff = math.MaxUint32 &^ 0xffff }),
		"header misplaced": valid(func(h *header) { h.dataOff++; h.slots = 1; h.size = 1 }),
		"another key":      valid(func(h *header) { h.hash[0]++ }),
	}
}

func TestFileThatIsNoSegment(t *testing.T) {
	for name, content := range foreign(t) {
		t.Run(name, func(t *testing.T) {
			dir := dirAt(t, "/dev/shm")
			path := pathOf(dir, key)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			creates.Store(0) // whoever creates next sweeps; this file is not theirs to sweep
			for _, c := range byKey {
				wantError(t, c.call(key, Dir(dir)), c.op, key, ErrCorrupt)
			}
			if name != "another key" { // which the store cannot know
				list := must(List(Dir(dir)))(t)
				swept := must(Sweep(Dir(dir)))(t)
				if len(list) != 0 || len(swept) != 0 {
					t.Errorf("List: %v, Sweep: %v", list, swept)
				}
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
				t.Errorf("it has changed: %v", err)
			}
			if left := files(t, dir); len(left) != 1 {
				t.Errorf("left: %v", left)
			}
		})
	}
}

// A header of 4 GiB must not be read, nor one that wraps round in 32 bits.
func TestHeaderLargerThanAnyIsCorrupt(t *testing.T) {
	dir := dirAt(t, "/dev/shm")
	s := must(newShape(100, 0))(t)
	page := s.fresh(key)
	h := headerAt(page)
	h.state.Store(stateLive)
	h.dataOff = math.MaxUint32 &^ 0xffff
	h.slots = maxSlots
	path := pathOf(dir, key)
	if err := os.WriteFile(path, page, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 5<<30); err != nil {
		t.Skip("no files of that size here:", err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(dir)), c.op, key, ErrCorrupt)
	}
	for op, err := range wholeStore(Dir(dir)) {
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestUseAfterDetach(t *testing.T) {
	store(t)
	other := create(t, key, 100) // keeps the memory
	seg := attach(t, key)
	lock(t, other)
	unlock(t, other) // the version is not zero
	detach(t, seg)
	b := make([]byte, 4)
	ctx := context.Background()
	called := func([]byte) error { t.Error("called"); return nil }
	for _, c := range []struct {
		op   string
		call func() error
	}{
		{"lock", seg.Lock},
		{"lock", func() error { return seg.LockContext(ctx) }},
		{"lock", func() error {
			ok, err := seg.TryLock()
			if ok {
				t.Error("TryLock: true")
			}
			return err
		}},
		{"unlock", seg.Unlock},
		{"view", func() error { return seg.View(called) }},
		{"update", func() error { return seg.Update(called) }},
		{"read", func() error { _, err := seg.ReadAt(b, 0); return err }},
		{"write", func() error { _, err := seg.WriteAt(b, 0); return err }},
		{"snapshot", func() error { _, _, err := seg.Snapshot(b); return err }},
		{"wait", func() error { _, err := seg.Wait(ctx, 0); return err }},
		{"info", func() error { _, err := seg.Info(); return err }},
		{"view", func() error { _, err := Value[int32](seg, 0); return err }},
		{"view", func() error { _, err := Slice[int32](seg, 0, 1); return err }},
		{"detach", seg.Detach},
	} {
		wantError(t, c.call(), c.op, key, ErrDetached)
	}
	if err := seg.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if seg.Data() != nil || seg.Size() != 0 || seg.Attached() || seg.Abandoned() || seg.Key() != key {
		t.Errorf("data %v, size %d, attached %v, key %q", seg.Data(), seg.Size(), seg.Attached(), seg.Key())
	}
	if v := seg.Version(); v != 0 {
		t.Errorf("version %d, want 0", v)
	}
	if ok, err := other.TryLock(); !ok || err != nil {
		t.Errorf("the other attachment: %v, %v", ok, err)
	}
}

func TestUnlockWithoutLock(t *testing.T) {
	store(t)
	seg, other := create(t, key, 100), attach(t, key)
	wantError(t, seg.Unlock(), "unlock", key, ErrNotLocked)
	lock(t, other)
	wantError(t, seg.Unlock(), "unlock", key, ErrNotLocked)
	if ok, _ := seg.TryLock(); ok {
		t.Error("the other's lock is gone")
	}
	if v := seg.Version(); v != 0 {
		t.Errorf("version %d: nothing was written", v)
	}
}

func TestWriteThroughReadOnly(t *testing.T) {
	store(t)
	create(t, key, 100)
	seg := attach(t, key, ReadOnly)
	_, err := seg.WriteAt([]byte("x"), 0)
	wantError(t, err, "write", key, ErrReadOnly)
	wantError(t, seg.Update(func([]byte) error { t.Error("called"); return nil }), "update", key, ErrReadOnly)
	if seg.Data()[0] != 0 || seg.Version() != 0 {
		t.Error("it has changed")
	}
	if !seg.ReadOnly() {
		t.Error("ReadOnly() = false")
	}
}

func TestWriteOutside(t *testing.T) {
	store(t)
	seg := create(t, key, 10)
	for _, c := range []struct {
		n   int
		off int64
	}{{1, 10}, {11, 0}, {2, 9}, {1, -1}, {0, 11}, {1, math.MaxInt64}, {1, math.MinInt64}, {1, 1 << 32}, {1, 1<<32 - 1}} {
		n, err := seg.WriteAt(bytes.Repeat([]byte("x"), c.n), c.off)
		if wantError(t, err, "write", key, ErrSize); n != 0 {
			t.Errorf("%d bytes at %d: wrote %d", c.n, c.off, n)
		}
	}
	if !bytes.Equal(seg.Data(), make([]byte, 10)) || seg.Version() != 0 {
		t.Error("it has changed")
	}
	_, err := seg.ReadAt(make([]byte, 1), -1)
	wantError(t, err, "read", key, ErrSize)
}

func TestTooManyAttachments(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 10, MaxAttachments(2))
	second := attach(t, key)
	before := files(t, dir)
	for range 3 {
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNoSpace)
		_, _, err = Open(key, 10)
		wantError(t, err, "open", key, ErrNoSpace)
	}
	info := must(seg.Info())(t)
	if after := files(t, dir); len(after) != len(before) || info.Attached != 2 || seg.m.head.refs.Load() != 2 {
		t.Errorf("files %v, %d attached, %d counted", after, info.Attached, seg.m.head.refs.Load())
	}
	detach(t, second)
	attach(t, key)
}
