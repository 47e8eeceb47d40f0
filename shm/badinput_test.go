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
	"strings"
	"testing"

	"qshm/lockfile"
)

const key = "a key"

// byKey are the calls that take a key.
var byKey = []struct {
	op   string
	call func(key string, opts ...Option) error
}{
	{"create", func(key string, opts ...Option) error { return closeAgain(Create(key, 100, opts...)) }},
	{"attach", func(key string, opts ...Option) error { return closeAgain(Attach(key, opts...)) }},
	{"open", func(key string, opts ...Option) error {
		seg, _, err := Open(key, 100, opts...)
		return closeAgain(seg, err)
	}},
	{"stat", func(key string, opts ...Option) error { _, err := Stat(key, opts...); return err }},
	{"remove", Remove},
}

func closeAgain(seg *Segment, err error) error {
	if seg != nil {
		seg.Close()
	}
	return err
}

// mayCreate reports whether an operation of byKey may create.
func mayCreate(op string) bool { return op == "create" || op == "open" }

// byStore calls what takes a whole store.
func byStore(opts ...Option) map[string]error {
	_, list := List(opts...)
	_, sweep := Sweep(opts...)
	return map[string]error{"list": list, "sweep": sweep}
}

func TestEmptyKeyIsRefused(t *testing.T) {
	store(t)
	for _, c := range byKey {
		wantError(t, c.call(""), c.op, "", ErrKey)
	}
}

func TestImpossibleSizesAreRefused(t *testing.T) {
	dir := store(t)
	for _, size := range []int{0, -1, math.MinInt, math.MaxInt, math.MaxInt - 4095} {
		_, err := Create(key, size)
		wantError(t, err, "create", key, ErrSize)
		_, created, err := Open(key, size)
		wantError(t, err, "open", key, ErrSize)
		if created {
			t.Errorf("Open with size %d says that it created", size)
		}
		wantFiles(t, dir)
	}
}

func TestMoreMemoryThanThereIsIsRefused(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("every int may be free on 32 bits")
	}
	dir := store(t)
	for _, size := range []int{math.MaxInt / 2, math.MaxInt / 1024 / 1024} {
		_, err := Create(key, size)
		wantError(t, err, "create", key, ErrNoSpace)
		wantFiles(t, dir)
	}
}

func TestSparseBeyondTheAddressSpaceIsRefused(t *testing.T) {
	if math.MaxInt == math.MaxInt32 {
		t.Skip("every int is an address on 32 bits")
	}
	dir := store(t)
	_, err := Create(key, math.MaxInt/4, Sparse())
	if wantError(t, err, "create", key); !errors.Is(err, ErrNoSpace) && !errors.Is(err, ErrSize) {
		t.Errorf("%v: want ErrNoSpace or ErrSize", err)
	}
	wantFiles(t, dir)
}

func TestMissingSegmentIsNotExist(t *testing.T) {
	dir := store(t)
	for _, c := range byKey {
		if !mayCreate(c.op) {
			wantError(t, c.call(key), c.op, key, ErrNotExist, fs.ErrNotExist)
		}
	}
	wantFiles(t, dir)
}

func TestCreateOfATakenKeyChangesNothing(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	copy(seg.Data(), "mine")
	lock(t, seg)
	_, err := Create(key, 200)
	wantError(t, err, "create", key, ErrExist, fs.ErrExist)
	_, err = Create(key, 200, Dir(filepath.Dir(seg.m.path)), MaxAttachments(3))
	wantError(t, err, "create", key, ErrExist)
	if ok, _ := otherProcess(t, seg).TryLock(); ok || string(seg.Data()[:4]) != "mine" || seg.Size() != 100 {
		t.Error("the segment has changed, or lost its lock")
	}
}

// Only Create and Open make a store.
func TestLookingMakesNoStore(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "missing", "store")
	for _, c := range byKey {
		if !mayCreate(c.op) {
			wantError(t, c.call(key, Dir(dir)), c.op, key, ErrNotExist, fs.ErrNotExist)
		}
	}
	for op, err := range byStore(Dir(dir)) {
		if err != nil {
			t.Errorf("%s of a store that does not exist: %v, want an empty list", op, err)
		}
	}
	if _, err := os.Lstat(filepath.Dir(dir)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the parent of the store was made: %v", err)
	}
	for _, op := range byKey[:1] {
		if err := op.call(key, Dir(dir)); err != nil {
			t.Error(err)
		}
	}
	wantFiles(t, dir)
}

func TestStoreThatCannotBeMadeIsNotAMissingSegment(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	dirs := []string{filepath.Join(file, "store")}
	if runtime.GOOS == "linux" {
		dirs = append(dirs, "/proc/qshm/store", "/proc/self/fd/qshm") // mkdir says: no such file
	}
	for _, dir := range dirs {
		for _, c := range byKey {
			if !mayCreate(c.op) {
				continue
			}
			err := c.call(key, Dir(dir))
			if wantError(t, err, c.op, key); errors.Is(err, ErrNotExist) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%v: is ErrNotExist, which is about segments", err)
			}
			if !strings.Contains(err.Error(), filepath.Dir(dir)) {
				t.Errorf("%v: does not name the store", err)
			}
		}
	}
}

func TestStoreThatIsAFileIsAnError(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(file)), c.op, key)
	}
	for op, err := range byStore(Dir(file)) {
		wantError(t, err, op, "")
	}
	if b, _ := os.ReadFile(file); string(b) != "mine" {
		t.Error("the file has changed")
	}
}

func TestStoreThatIsASymbolicLinkIsAnError(t *testing.T) {
	dir, link := t.TempDir(), filepath.Join(t.TempDir(), "link")
	symlink(t, dir, link)
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(link)), c.op, key)
	}
	for op, err := range byStore(Dir(link)) {
		wantError(t, err, op, "")
	}
	wantFiles(t, dir)
}

func symlink(t *testing.T, target, link string) {
	t.Helper()
	if err := os.Symlink(target, link); err != nil {
		t.Skip(err)
	}
	if _, err := os.Lstat(link); err != nil {
		t.Skip("no link was made, though wine said so:", err)
	}
}

func needUser(t *testing.T) {
	t.Helper()
	if runtime.GOOS == "windows" || os.Geteuid() == 0 {
		t.Skip("this user may write everywhere")
	}
}

func TestStoreThatIsNotWritableIsErrPermission(t *testing.T) {
	needUser(t)
	dir := t.TempDir()
	os.Chmod(dir, 0o500)
	t.Cleanup(func() { os.Chmod(dir, 0o700) })
	for _, c := range byKey {
		if mayCreate(c.op) {
			wantError(t, c.call(key, Dir(dir)), c.op, key, ErrPermission, fs.ErrPermission)
		}
	}
}

func TestSegmentThatMayNotBeOpenedIsErrPermission(t *testing.T) {
	needUser(t)
	dir := store(t)
	seg := create(t, key, 100)
	path := segmentPath(dir, key)
	os.Chmod(path, 0)
	_, err := Stat(key)
	wantError(t, err, "stat", key, ErrPermission, fs.ErrPermission)
	wantError(t, Remove(key), "remove", key, ErrPermission)
	list := must(List())(t)
	if len(list) != 1 || list[0].Status != StatusUnknown || list[0].Path != path {
		t.Errorf("List: %+v, want the path and StatusUnknown", list)
	}
	os.Chmod(path, 0o600)
	detach(t, seg)
}

// made returns the contents of a segment's file as its creator leaves them, changed.
func made(t testing.TB, change func(*header)) []byte {
	s := must(newShape(key, 100, asManyAsFit))(t)
	s.locks = lockKind(t)
	b := make([]byte, s.dataOff+s.size)
	copy(b, s.fresh(key))
	headerAt(b).state.Store(stateLive)
	change(headerAt(b))
	return b
}

// lockKind returns the kind of slot locks that creators use here.
func lockKind(t testing.TB) lockfile.Kind {
	file := must(os.CreateTemp(t.TempDir(), ""))(t)
	defer file.Close()
	return lockfile.KindFor(file)
}

// foreign are contents of files that are no segments.
func foreign(t testing.TB) map[string][]byte {
	whole := made(t, func(*header) {})
	dataOff := int(headerAt(whole).dataOff)
	return map[string][]byte{
		"text":                 []byte("Dear diary"),
		"one byte":             {1},
		"one zero":             {0},
		"text after zeros":     append(make([]byte, 100), "text"...),
		"zeros, too many":      make([]byte, minHeader+1),
		"zeros, very many":     make([]byte, 1<<20),
		"magic alone":          magic[:],
		"truncated header":     whole[:200],
		"truncated data":       whole[:dataOff+99],
		"no data":              whole[:dataOff],
		"newer format":         made(t, func(h *header) { h.format++ }),
		"format 1":             made(t, func(h *header) { h.format = 1 }),
		"format 1, making":     made(t, func(h *header) { h.format = 1; h.state.Store(stateMaking) }),
		"other byte order":     made(t, func(h *header) { h.order = 0x04030201 }),
		"other order, making":  made(t, func(h *header) { h.order = 0x04030201; h.state.Store(stateMaking) }),
		"other magic":          made(t, func(h *header) { h.magic[1] = 'x' }),
		"size 0":               made(t, func(h *header) { h.size.Store(0) }),
		"size of all":          made(t, func(h *header) { h.size.Store(math.MaxUint64) }),
		"size overflows":       made(t, func(h *header) { h.size.Store(math.MaxInt64) }),
		"size with header off": made(t, func(h *header) { h.size.Store(-uint64(h.dataOff)) }),
		"no slots":             made(t, func(h *header) { h.slots = 0 }),
		"too many slots":       made(t, func(h *header) { h.slots = 100000 }),
		"slots in the data":    made(t, func(h *header) { h.slots = uint32((int(h.dataOff)-slotsOff)/slotSize) + 1 }),
		"all slots":            made(t, func(h *header) { h.slots = math.MaxUint32 }),
		"header too small":     made(t, func(h *header) { h.dataOff = 1024 }),
		"no header":            made(t, func(h *header) { h.dataOff = 0 }),
		"header too large":     made(t, func(h *header) { h.dataOff = math.MaxUint32 &^ 0xffff }),
		"header misplaced":     made(t, func(h *header) { h.dataOff++; h.slots = 1; h.size.Store(1) }),
		"another key":          made(t, func(h *header) { h.hash[0]++ }),
	}
}

func TestForeignFileIsErrCorruptAndStaysAsItIs(t *testing.T) {
	for name, content := range foreign(t) {
		t.Run(name, func(t *testing.T) {
			dir := tempDir(t)
			path := segmentPath(dir, key)
			if err := os.WriteFile(path, content, 0o600); err != nil {
				t.Fatal(err)
			}
			sweepNext() // which must not touch the file either
			for _, c := range byKey {
				err := c.call(key, Dir(dir))
				wantError(t, err, c.op, key, ErrCorrupt)
				if !strings.Contains(err.Error(), path) {
					t.Errorf("%v: does not name the file", err)
				}
				if strings.HasPrefix(name, "format 1") && !strings.Contains(err.Error(), "format 1") {
					t.Errorf("%v: does not name the format", err)
				}
			}
			if name != "another key" { // List and Sweep are not told which key is right
				list, swept := must(List(Dir(dir)))(t), must(Sweep(Dir(dir)))(t)
				if len(list) != 0 || len(swept) != 0 {
					t.Errorf("List: %v, Sweep: %v, want none", list, swept)
				}
			}
			if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
				t.Errorf("the file has changed: %v", err)
			}
			wantFiles(t, dir, filepath.Base(path))
		})
	}
}

// sweepNext lets the next Create of this process sweep.
func sweepNext() { creates.Store(0) }

// A header of 4 GiB must not be read, nor one that overflows on 32 bits.
func TestHugeHeaderIsErrCorrupt(t *testing.T) {
	dir := tempDir(t)
	b := made(t, func(h *header) {
		h.dataOff = math.MaxUint32 &^ 0xffff
		h.slots = maxSlots
	})
	path := segmentPath(dir, key)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, 5<<30); err != nil {
		t.Skip("no files of that size here:", err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(dir)), c.op, key, ErrCorrupt)
	}
	for op, err := range byStore(Dir(dir)) {
		if err != nil {
			t.Errorf("%s: %v", op, err)
		}
	}
}

func TestUnknownKindOfLocksIsUnsupported(t *testing.T) {
	dir := tempDir(t)
	b := made(t, func(h *header) { h.locks = 3 })
	path := segmentPath(dir, key)
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range byKey {
		wantError(t, c.call(key, Dir(dir)), c.op, key, errors.ErrUnsupported)
	}
	if list := must(List(Dir(dir)))(t); len(list) != 1 || list[0].Status != StatusUnknown {
		t.Errorf("List: %+v, want one of StatusUnknown", list)
	}
	if swept := must(Sweep(Dir(dir)))(t); len(swept) != 0 {
		t.Errorf("Sweep: %+v, want none: it cannot tell whether a process is attached", swept)
	}
	if now, err := os.ReadFile(path); err != nil || !bytes.Equal(now, b) {
		t.Errorf("the file has changed: %v", err)
	}
}

func TestCallsAfterDetachReportErrDetached(t *testing.T) {
	store(t)
	other := create(t, key, 100) // keeps the memory
	seg := attach(t, key)
	lock(t, other)
	unlock(t, other) // the version is not zero
	detach(t, seg)
	b := make([]byte, 4)
	ctx := context.Background()
	called := func([]byte) error { t.Error("the function was called"); return nil }
	for _, c := range []struct {
		op   string
		call func() error
	}{
		{"lock", seg.Lock},
		{"lock", func() error { return seg.LockContext(ctx) }},
		{"lock", func() error {
			ok, err := seg.TryLock()
			if ok {
				t.Error("TryLock says that it has the lock")
			}
			return err
		}},
		{"unlock", seg.Unlock},
		{"view", func() error { return seg.View(called) }},
		{"update", func() error { return seg.Update(called) }},
		{"update", func() error {
			return seg.UpdateWhen(ctx, func([]byte) bool { t.Error("ready was called"); return true }, called)
		}},
		{"read", func() error { _, err := seg.ReadAt(b, 0); return err }},
		{"write", func() error { _, err := seg.WriteAt(b, 0); return err }},
		{"snapshot", func() error { _, _, err := seg.Snapshot(b); return err }},
		{"load", func() error { _, err := Load[int32](seg, 0); return err }},
		{"store", func() error { return Store(seg, 0, int32(1)) }},
		{"grow", func() error { return seg.Grow(1000) }},
		{"wait", func() error { _, err := seg.Wait(ctx, 0); return err }},
		{"wait", func() (last error) {
			for _, last = range seg.Changes(ctx) {
			}
			return last
		}},
		{"info", func() error { _, err := seg.Info(); return err }},
		{"view", func() error { _, err := Value[int32](seg, 0); return err }},
		{"view", func() error { _, err := Slice[int32](seg, 0, 1); return err }},
		{"detach", seg.Detach},
	} {
		wantError(t, c.call(), c.op, key, ErrDetached)
	}
	if err := seg.Close(); err != nil {
		t.Errorf("Close: %v, want nil", err)
	}
	if seg.Data() != nil || seg.Size() != 0 || seg.Attached() || seg.Abandoned() || seg.Key() != key || seg.Version() != 0 || seg.ID() != 0 {
		t.Errorf("Data %v, Size %d, Attached %v, Abandoned %v, Key %q, Version %d, ID %d",
			seg.Data(), seg.Size(), seg.Attached(), seg.Abandoned(), seg.Key(), seg.Version(), seg.ID())
	}
	if ok, err := other.TryLock(); !ok || err != nil || other.Size() != 100 {
		t.Errorf("the other attachment: TryLock %v, %v, size %d", ok, err, other.Size())
	}
}

func TestUnlockWithoutLockIsErrNotLocked(t *testing.T) {
	store(t)
	seg, other := create(t, key, 100), attach(t, key)
	wantError(t, seg.Unlock(), "unlock", key, ErrNotLocked)
	lock(t, other)
	wantError(t, seg.Unlock(), "unlock", key, ErrNotLocked)
	if ok, _ := seg.TryLock(); ok {
		t.Error("the other attachment has lost the lock")
	}
	if v := seg.Version(); v != 0 {
		t.Errorf("the version is %d, though nothing was written", v)
	}
}

func TestWritingThroughAReadOnlyAttachmentIsErrReadOnly(t *testing.T) {
	store(t)
	create(t, key, 100)
	seg := attach(t, key, ReadOnly())
	called := func([]byte) error { t.Error("the function was called"); return nil }
	for _, c := range []struct {
		op   string
		call func() error
	}{
		{"write", func() error { _, err := seg.WriteAt([]byte("x"), 0); return err }},
		{"store", func() error { return Store(seg, 0, byte('x')) }},
		{"grow", func() error { return seg.Grow(1000) }},
		{"update", func() error { return seg.Update(called) }},
		{"update", func() error {
			return seg.UpdateWhen(t.Context(), func([]byte) bool { t.Error("ready was called"); return true }, called)
		}},
	} {
		wantError(t, c.call(), c.op, key, ErrReadOnly)
	}
	if seg.Data()[0] != 0 || seg.Version() != 0 || seg.Size() != 100 {
		t.Error("the data have changed")
	}
	if !seg.ReadOnly() {
		t.Error("ReadOnly() = false")
	}
}

func TestWritingOutsideIsErrSize(t *testing.T) {
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
	for _, off := range []int{7, 10, -1, math.MaxInt, math.MinInt} {
		wantError(t, Store(seg, off, uint32(1)), "store", key, ErrSize)
		_, err := Load[uint32](seg, off)
		wantError(t, err, "load", key, ErrSize)
	}
	if !bytes.Equal(seg.Data(), make([]byte, 10)) || seg.Version() != 0 {
		t.Error("the data have changed")
	}
	_, err := seg.ReadAt(make([]byte, 1), -1)
	wantError(t, err, "read", key, ErrSize)
}
