package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"qshm/lockfile"
)

func wantStatus(t testing.TB, want Status) {
	t.Helper()
	if info, err := Stat(key); err != nil || info.Status != want {
		t.Errorf("Stat: %v, %v, want %v", info.Status, err, want)
	}
}

func TestCreatedMemoryIsZeroAndExact(t *testing.T) {
	store(t)
	for _, size := range []int{1, 4095, 4096, 4097, 1 << 20} {
		seg := create(t, key, size)
		if seg.Size() != size || len(seg.Data()) != size || cap(seg.Data()) != size || !seg.Attached() || seg.ReadOnly() {
			t.Errorf("Size %d, %d bytes of data (%d), want %d", seg.Size(), len(seg.Data()), cap(seg.Data()), size)
		}
		for i, b := range seg.Data() {
			if b != 0 {
				t.Fatalf("byte %d is %d, want 0", i, b)
			}
			seg.Data()[i] = 0xff
		}
		detach(t, seg)
	}
}

func TestAttachmentsShareTheMemory(t *testing.T) {
	store(t)
	a := create(t, key, 100)
	b, c, d := attach(t, key), attach(t, key, ReadOnly()), otherProcess(t, a)
	must(d.m.view(false))(t)
	copy(a.Data(), "shared")
	for _, seg := range []*Segment{b, c, d} {
		if string(seg.Data()[:6]) != "shared" || seg.Size() != 100 {
			t.Errorf("another attachment sees %q", seg.Data()[:6])
		}
	}
}

// Each mapping counts against a limit of the system.
func TestAttachmentsOfAProcessShareOneMapping(t *testing.T) {
	store(t)
	before := mappings.Load()
	a := create(t, key, 100)
	for range 5 {
		if b := attach(t, key); &b.Data()[0] != &a.Data()[0] || b.m != a.m {
			t.Error("a second attachment has a mapping of its own")
		}
	}
	b, c := attach(t, key, ReadOnly()), attach(t, key, ReadOnly())
	if &b.Data()[0] != &c.Data()[0] || b.m != a.m {
		t.Error("a second read-only attachment has a mapping of its own")
	}
	if n := mappings.Load() - before; n != 2 && a.m.locks.Atomic() { // otherwise each attachment maps the header once
		t.Errorf("%d mappings, want one for each kind of attachment", n)
	}
}

// One store under two paths is one store: the registry of a process knows segments by
// the identity of their files.
func TestTwoPathsOfAStoreShareOneMapping(t *testing.T) {
	dir := store(t)
	parent := filepath.Join(t.TempDir(), "parent")
	symlink(t, filepath.Dir(dir), parent)
	other := Dir(filepath.Join(parent, filepath.Base(dir)))
	a := create(t, key, 2)
	b := attach(t, key, other)
	if a.m != b.m || &a.Data()[0] != &b.Data()[0] {
		t.Error("the second path has led to a second mapping")
	}
	// The race detector sees the lock only if both use one race.Token.
	contend(t, 500, a, b)
	_, err := Create(key, 1, other)
	wantError(t, err, "create", key, ErrExist)
	detach(t, a)
	if info, err := Stat(key, other); err != nil || info.Attached != 1 {
		t.Errorf("%d attached, %v, want 1", info.Attached, err)
	}
	detach(t, b)
}

func TestStoreHasOneFilePerSegment(t *testing.T) {
	dir := store(t)
	if lockKind(t) != lockfile.RecordLocks {
		t.Skip("slots have files of their own here")
	}
	create(t, key, 1)
	attach(t, key)
	attach(t, key, ReadOnly())
	wantFiles(t, dir, filepath.Base(segmentPath(dir, key)))
}

func TestKeysDoNotShare(t *testing.T) {
	store(t)
	a, b := create(t, "key", 100), create(t, "KEY", 200)
	a.Data()[0] = 1
	if b.Data()[0] != 0 || b.Size() != 200 {
		t.Error("two keys have the same memory")
	}
}

func TestAnyBytesAreAKey(t *testing.T) {
	store(t)
	for _, key := range []string{"../../x", "\x00", "\xff\xfe", "nul", string(make([]byte, 1<<16)), "共有メモリ"} {
		seg := create(t, key, 1)
		if info := must(Stat(key))(t); info.Key != key || seg.Key() != key {
			t.Errorf("the key %.20q is reported as %.20q", key, info.Key)
		}
		attach(t, key)
	}
	for _, info := range must(List())(t) {
		if info.Status != StatusLive || info.Key == "" {
			t.Errorf("List: %+v", info)
		}
	}
}

func TestLastDetachDestroys(t *testing.T) {
	dir := store(t)
	a := create(t, key, 100)
	b := attach(t, key)
	detach(t, a)
	wantStatus(t, StatusLive)
	b.Data()[0] = 1
	detach(t, b)
	wantFiles(t, dir)
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNotExist)
}

func TestOpenCreatesOnce(t *testing.T) {
	store(t)
	a, created, err := Open(key, 100)
	if err != nil || !created {
		t.Fatalf("first Open: created %v, %v", created, err)
	}
	defer a.Close()
	b, created, err := Open(key, 200)
	if err != nil || created || b.Size() != 100 {
		t.Fatalf("second Open: created %v, %v, size %d", created, err, b.Size())
	}
	b.Close()
}

func TestOneOfManyOpensCreates(t *testing.T) {
	dir := store(t)
	for range 30 {
		var wg sync.WaitGroup
		var creators atomic.Int32
		segs := make([]*Segment, 10)
		start := make(chan struct{})
		for i := range segs {
			wg.Go(func() {
				<-start
				seg, created, err := Open(key, 10)
				if err != nil {
					t.Error(err)
					return
				}
				if created {
					creators.Add(1)
				}
				segs[i] = seg
				seg.Data()[i] = 1
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() || creators.Load() != 1 {
			t.Fatalf("%d calls have created", creators.Load())
		}
		if string(segs[0].Data()) != "\x01\x01\x01\x01\x01\x01\x01\x01\x01\x01" {
			t.Error("the attachments do not all share the memory")
		}
		for _, seg := range segs {
			wg.Go(func() { seg.Close() })
		}
		wg.Wait()
		wantFiles(t, dir)
	}
}

// While an attachment exists, no other goroutine removes the memory or creates the
// segment anew.
func TestMemoryStaysWhileOthersComeAndGo(t *testing.T) {
	store(t)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 200 {
				seg, _, err := Open(key, 8)
				if err != nil {
					t.Error(err)
					return
				}
				if other, err := Attach(key); err != nil {
					t.Errorf("attach to a segment that this goroutine is attached to: %v", err)
				} else {
					atomic.AddInt64(must(Value[int64](seg, 0))(t), 1)
					if &seg.Data()[0] != &other.Data()[0] {
						t.Error("the key leads to other memory")
					}
					other.Close()
				}
				seg.Close()
			}
		})
	}
	wg.Wait()
}

func TestSecondCloseReportsNil(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	for range 2 {
		if err := seg.Close(); err != nil {
			t.Error(err)
		}
	}
}

// When an attachment fails, it may be the last one by then. It must not leave the
// segment behind.
func TestAttachThatFailsAsTheLastDestroys(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 100)
	peer := otherProcess(t, seg)
	detach(t, seg)
	f := must(lockfile.Lock(t.Context(), segmentPath(dir, key)))(t)
	m, _, err := openMapping(f, key, true)
	if err != nil {
		t.Fatal(err)
	}
	target := must(locate("attach", key, []Option{ReadOnly()}, false))(t)
	m.mu.Lock() // so that the data are mapped later
	failed := make(chan error)
	go func() {
		_, _, err := target.attachIn(f, m)
		failed <- err
	}()
	eventually(t, "the first slot is taken", func() bool { return m.taken(0) })
	detach(t, peer)
	m.head.size.Store(1) // which is less than the segment had
	m.mu.Unlock()
	if err := <-failed; !errors.Is(err, ErrCorrupt) {
		t.Errorf("attach: %v, want ErrCorrupt", err)
	}
	wantFiles(t, dir)
}

// garbage are files as crashes leave them.
func garbage(t testing.TB) map[string][]byte {
	crashed := func(state uint32, taken bool) []byte {
		b := made(t, func(h *header) { h.state.Store(state) })
		if taken {
			h := headerAt(b)
			h.refs.Store(1)
			h.word.Store(ownerBits(0))
			slotsAt(b, 1)[0].Store(slotTaken | 42)
		}
		return b
	}
	return map[string][]byte{
		"empty":                             nil,
		"two zeros":                         make([]byte, 2),
		"zeros":                             make([]byte, minHeader),
		"making":                            crashed(stateMaking, false),
		"making, claimed":                   crashed(stateMaking, true),
		"making, without memory":            crashed(stateMaking, false)[:slotsOff],
		"live, no process attached":         crashed(stateLive, false),
		"live, its process dead":            crashed(stateLive, true),
		"dead":                              crashed(stateDead, false),
		"dead, its process dead":            crashed(stateDead, true),
		"removed, its process dead":         crashed(stateRemoved, true),
		"a state that is not one":           crashed(77, true),
		"longer than its header says":       append(crashed(stateLive, true), make([]byte, 5000)...),
		"live, the lock owned by no slot":   made(t, func(h *header) { h.word.Store(ownerMask) }),
		"live, with many references":        made(t, func(h *header) { h.refs.Store(1000) }),
		"live, the event word armed":        made(t, func(h *header) { h.event.Store(eventArmed) }),
		"live, waited for by processes":     made(t, func(h *header) { h.word.Store(waitersBit | starvingBit) }),
		"live, abandoned by one that wrote": made(t, func(h *header) { h.word.Store(abandonedBit) }),
	}
}

// leave puts a file under the key, in a store of its own.
func leave(t testing.TB, content []byte) (dir string) {
	t.Helper()
	dir = store(t)
	if err := os.WriteFile(segmentPath(dir, key), content, 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func eachGarbage(t *testing.T, test func(t *testing.T, name, dir string)) {
	for name, content := range garbage(t) {
		t.Run(name, func(t *testing.T) { test(t, name, leave(t, content)) })
	}
}

func TestGarbageIsNoSegment(t *testing.T) {
	eachGarbage(t, func(t *testing.T, name, dir string) {
		wantStatus(t, StatusDead)
		if list := must(List())(t); len(list) != 1 || list[0].Status != StatusDead || list[0].Attached != 0 {
			t.Errorf("List: %+v, want a dead segment", list)
		}
		wantFiles(t, dir, filepath.Base(segmentPath(dir, key))) // looking changes nothing
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNotExist)
		wantFiles(t, dir)
	})
}

func TestCreateReplacesGarbage(t *testing.T) {
	eachGarbage(t, func(t *testing.T, name, _ string) {
		seg := create(t, key, 200)
		if seg.Size() != 200 || must(seg.Info())(t).Attached != 1 || seg.Data()[0] != 0 {
			t.Errorf("size %d", seg.Size())
		}
		wantReplaced(t, seg, name)
	})
}

func TestOpenReplacesGarbage(t *testing.T) {
	eachGarbage(t, func(t *testing.T, name, _ string) {
		seg, created, err := Open(key, 200)
		if err != nil || !created {
			t.Fatalf("created %v, %v", created, err)
		}
		defer seg.Close()
		wantReplaced(t, seg, name)
	})
}

// wantReplaced checks what Replaced says of garbage. A file that never was a segment
// is not worth a mention.
func wantReplaced(t testing.TB, seg *Segment, name string) {
	t.Helper()
	info, ok := seg.Replaced()
	never := name == "empty" || strings.Contains(name, "zeros") || strings.HasPrefix(name, "making")
	if ok == never {
		t.Errorf("Replaced: %v, want %v", ok, !never)
	}
	if !ok {
		return
	}
	abandoned := strings.HasSuffix(name, "its process dead") || strings.Contains(name, "abandoned") ||
		slices.Contains([]string{"longer than its header says", "a state that is not one", "live, the lock owned by no slot"}, name)
	if info.Key != key || info.Size != 100 || info.Attached != 0 || info.Status != StatusDead || info.Abandoned != abandoned {
		t.Errorf("Replaced: %+v, want 100 bytes of %q, abandoned: %v", info, key, abandoned)
	}
}

func TestRemoveRemovesGarbage(t *testing.T) {
	eachGarbage(t, func(t *testing.T, _, _ string) {
		if err := Remove(key); err != nil {
			t.Error(err)
		}
	})
}

func TestSweepRemovesGarbage(t *testing.T) {
	eachGarbage(t, func(t *testing.T, _, _ string) {
		if swept := must(Sweep())(t); len(swept) != 1 || swept[0].Status != StatusDead {
			t.Errorf("Sweep: %+v, want a dead segment", swept)
		}
	})
}

func TestCreateSweepsUnderOtherKeys(t *testing.T) {
	eachGarbage(t, func(t *testing.T, _, dir string) {
		sweepNext()
		left := sweepLeaves(t)
		detach(t, create(t, "another key", 1))
		wantFiles(t, dir, left...)
		must(Sweep())(t)
		wantFiles(t, dir)
	})
}

// sweepLeaves returns the names of the segments that a Create under another key leaves:
// small ones whose lock was abandoned.
func sweepLeaves(t *testing.T) (names []string) {
	for _, info := range must(List())(t) {
		if info.Abandoned {
			names = append(names, info.Name)
		}
	}
	return names
}

func TestCreateSweepsLargeSegmentsUnderOtherKeys(t *testing.T) {
	b := made(t, func(h *header) { h.word.Store(abandonedBit); h.size.Store(smallSize + 1) })
	dir := leave(t, append(b, make([]byte, smallSize+1)...))
	sweepNext()
	detach(t, create(t, "another key", 1))
	wantFiles(t, dir)
}

func TestSweepLeavesLiveSegments(t *testing.T) {
	dir := store(t)
	create(t, key, 1)
	before := files(t, dir)
	if swept := must(Sweep())(t); len(swept) != 0 {
		t.Errorf("Sweep: %+v, want none", swept)
	}
	wantFiles(t, dir, before...)
	wantStatus(t, StatusLive)
}

func TestSweepLeavesOtherFiles(t *testing.T) {
	dir := tempDir(t)
	name := filepath.Base(segmentPath("", key))
	names := []string{"notes", "frames-0", "d41d8cd98f00b204e9800998ecf8427e", "." + name, strings.TrimSuffix(name, ".qshm"), name + "~", "x.qshm", ".qshm"}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	must(Sweep(Dir(dir)))(t)
	sweepNext()
	detach(t, create(t, key, 1, Dir(dir)))
	wantFiles(t, dir, names...)
}

// A creator that was killed before it had allocated anything leaves a header alone.
func TestHeaderAloneIsGarbageOnlyWhileItIsMaking(t *testing.T) {
	dir := leave(t, made(t, func(h *header) { h.state.Store(stateMaking) })[:slotsOff])
	wantStatus(t, StatusDead)
	detach(t, create(t, key, 1))
	wantFiles(t, dir)
	// Another program has truncated the file of a segment. That is not ours to remove.
	path := segmentPath(dir, key)
	if err := os.WriteFile(path, made(t, func(*header) {})[:slotsOff], 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Create(key, 1)
	wantError(t, err, "create", key, ErrCorrupt)
	os.Remove(path)
}

// A creator that has made the file, and has it open but not locked yet, is in no other
// creator's way. On Windows it keeps the file from being removed.
func TestCreateInAnEmptyFileThatAnotherCreatorHasOpen(t *testing.T) {
	dir := store(t)
	slow := must(os.Create(segmentPath(dir, key)))(t)
	defer slow.Close()
	seg := create(t, key, 100)
	slow.Close()
	detach(t, seg)
	wantFiles(t, dir)
}

func TestDeadProcessesAreNotCounted(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	runThenKill(t, "attach and die", key)
	for _, info := range []Info{must(Stat(key))(t), must(seg.Info())(t), must(List())(t)[0]} {
		if info.Attached != 1 || len(info.Attachments) != 1 || info.Attachments[0].PID != os.Getpid() || info.Status != StatusLive {
			t.Errorf("%+v, want this process's attachment alone", info)
		}
	}
}

func TestCrashOfAnotherProcessLeavesNothing(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 1)
	runThenKill(t, "attach and die", key)
	detach(t, seg)
	must(Sweep())(t)
	wantFiles(t, dir)
}

func TestCrashOfTheCreatorLeavesGarbage(t *testing.T) {
	store(t)
	runThenKill(t, "create and die", key)
	wantStatus(t, StatusDead)
	seg := create(t, key, 1)
	if info, ok := seg.Replaced(); !ok || info.Key != key {
		t.Errorf("Replaced: %+v, %v", info, ok)
	}
	detach(t, seg)
	must(Sweep())(t)
}

func TestRemovedSegmentLivesOn(t *testing.T) {
	store(t)
	a, b := create(t, key, 100), attach(t, key)
	if err := Remove(key); err != nil {
		t.Fatal(err)
	}
	_, err := Stat(key)
	wantError(t, err, "stat", key, ErrNotExist)
	wantError(t, a.Grow(200), "grow", key, ErrNotExist)
	next := create(t, key, 200)
	wantError(t, a.Grow(200), "grow", key, ErrNotExist)
	copy(a.Data(), "old")
	lock(t, a)
	if ok, _ := b.TryLock(); ok {
		t.Error("the lock does not exclude any more")
	}
	if ok, _ := next.TryLock(); !ok {
		t.Error("the successor has the same lock")
	}
	if string(b.Data()[:3]) != "old" || next.Data()[0] != 0 {
		t.Error("the memory is not the one from before")
	}
	if info := must(a.Info())(t); info.Status != StatusRemoved || info.Attached != 2 {
		t.Errorf("%+v, want two attachments of a removed segment", info)
	}
	detach(t, a)
	detach(t, b)
	wantStatus(t, StatusLive)
}

// Attached processes go on when the store is removed with all that is in it;
// newcomers make a new segment.
func TestSegmentOutlivesItsStore(t *testing.T) {
	dir := store(t)
	seg, other := create(t, key, 1), attach(t, key)
	peer := otherProcess(t, seg)
	if err := os.RemoveAll(dir); err != nil {
		t.Skip(err)
	}
	next := create(t, key, 1)
	lock(t, seg)
	if ok, err := peer.TryLock(); ok || err != nil {
		t.Errorf("TryLock of a lock that is held: %v, %v", ok, err)
	}
	unlock(t, seg)
	if lockKind(t) == lockfile.RecordLocks {
		if info := must(seg.Info())(t); info.Attached != 3 || info.Status != StatusRemoved {
			t.Errorf("%d attached, %v, want 3 of a removed segment", info.Attached, info.Status)
		}
	}
	for _, s := range []*Segment{peer, other, seg} {
		detach(t, s)
	}
	wantStatus(t, StatusLive)
	detach(t, next)
}

// The last process to detach waits for a process that holds the file lock, and
// destroys the segment then.
func TestLastDetachWaitsForTheFileLock(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 8)
	f := must(lockfile.Lock(t.Context(), segmentPath(dir, key)))(t)
	result := make(chan error)
	go func() { result <- seg.Detach() }()
	eventually(t, "the slot is cleared", func() bool { return seg.head.refs.Load() == 0 })
	time.Sleep(time.Millisecond) // most often it waits by now
	if err := f.Unlock(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	wantFiles(t, dir)
}

// Nothing but the lock itself waits for the process that holds the lock.
func TestNothingWaitsBehindAHeldLock(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	lock(t, seg)
	other := attach(t, key)
	must(Stat(key))(t)
	must(List())(t)
	must(Sweep())(t)
	must(seg.Info())(t)
	if err := other.Grow(1 << 16); err != nil {
		t.Error(err)
	}
	detach(t, other)
	if _, err := Create(key, 1); err == nil {
		t.Error("created a second segment under the key")
	}
	if err := Remove(key); err != nil {
		t.Error(err)
	}
}

func TestWaitForTheFileLockEndsWithTheContext(t *testing.T) {
	dir := store(t)
	path := segmentPath(dir, key)
	f := must(lockfile.Create(path, 0o600))(t)
	defer f.Remove()
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	for _, c := range byKey {
		if c.op != "stat" { // which does not wait
			wantError(t, c.call(key, WithContext(ended)), c.op, key, context.Canceled)
		}
	}
	short, cancel := context.WithTimeout(context.Background(), 5*time.Millisecond)
	defer cancel()
	wantError(t, byKey[1].call(key, WithContext(short)), "attach", key, context.DeadlineExceeded)
}

// Any process that may open the file can hold its file lock.
func TestWaitForTheFileLockWithoutAContextEndsWithErrBusy(t *testing.T) {
	defer func(d time.Duration) { lockfile.Patience = d }(lockfile.Patience)
	lockfile.Patience = 20 * time.Millisecond
	dir := store(t)
	seg := create(t, key, 1)
	f := must(lockfile.Lock(t.Context(), seg.m.path))(t)
	defer f.Unlock()
	for name, call := range map[string]func() error{
		"grow":   func() error { return seg.Grow(1 << 16) },
		"remove": func() error { return Remove(key) },
	} {
		err := call()
		if wantError(t, err, name, key, ErrBusy); !strings.Contains(err.Error(), segmentPath(dir, key)) {
			t.Errorf("%v: does not name the file", err)
		}
	}
	asNewProcess(func() {
		for _, c := range byKey {
			kind := ErrBusy
			switch c.op {
			case "stat": // does not wait
				continue
			case "create": // sees a live segment without the file lock
				kind = ErrExist
				if slotLocks(t) == lockfile.SiblingFiles {
					kind = ErrBusy
				}
			}
			wantError(t, c.call(key), c.op, key, kind)
		}
	})
	if swept := must(Sweep())(t); len(swept) != 0 {
		t.Errorf("Sweep: %+v, want none: it does not wait for the file lock", swept)
	}
}

func TestInitRunsBeforeOthersAttach(t *testing.T) {
	store(t)
	const n = 8
	var wg sync.WaitGroup
	var runs atomic.Int32
	for range n {
		wg.Go(func() {
			seg, _, err := Open(key, 8, Init(func(data []byte) error {
				runs.Add(1)
				if len(data) != 8 || string(data) != string(make([]byte, 8)) {
					t.Errorf("Init got %v", data)
				}
				time.Sleep(time.Millisecond)
				copy(data, "complete")
				return nil
			}))
			if err != nil {
				t.Error(err)
				return
			}
			t.Cleanup(func() { seg.Close() })
			if string(seg.Data()) != "complete" {
				t.Errorf("attached to %q", seg.Data())
			}
		})
	}
	wg.Wait()
	if runs.Load() != 1 {
		t.Errorf("Init ran %d times, want once", runs.Load())
	}
}

func TestInitOfAReadOnlyAttachmentWrites(t *testing.T) {
	store(t)
	seg := create(t, key, 8, ReadOnly(), Init(func(data []byte) error { copy(data, "init"); return nil }))
	if string(seg.Data()[:4]) != "init" || seg.Version() != 0 {
		t.Errorf("%q, version %d", seg.Data(), seg.Version())
	}
	attach(t, key, Init(func([]byte) error { t.Error("Init ran for an attachment"); return nil }))
}

func TestInitThatFailsUndoesTheCreation(t *testing.T) {
	dir := store(t)
	own := errors.New("own")
	opts := map[string]Option{
		"error": Init(func([]byte) error { return own }),
		"panic": Init(func([]byte) error { panic(own) }),
	}
	for name, opt := range opts {
		err := func() (err error) {
			defer func() {
				if r := recover(); r != nil {
					err = r.(error)
				}
			}()
			return closeAgain(Create(key, 8, opt))
		}()
		if !errors.Is(err, own) {
			t.Errorf("%s: %v", name, err)
		}
		if name == "error" {
			wantError(t, err, "create", key)
		}
		wantFiles(t, dir)
		_, err = Attach(key)
		wantError(t, err, "attach", key, ErrNotExist)
		detach(t, create(t, key, 8)) // no lock is left behind
	}
}

func TestInitThatAttachesToItsOwnKeyIsErrBusy(t *testing.T) {
	defer func(d time.Duration) { lockfile.Patience = d }(lockfile.Patience)
	lockfile.Patience = 10 * time.Millisecond
	store(t)
	create(t, key, 8, Init(func([]byte) error {
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrBusy)
		return nil
	}))
}

// Of many goroutines and a segment that comes and goes, each gets a segment, and the
// last one leaves nothing.
func TestManyKeysAtOnce(t *testing.T) {
	dir := store(t)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for range 50 {
				seg, _, err := Open(fmt.Sprint("key ", i%2), 8)
				if err != nil {
					t.Error(err)
					return
				}
				seg.Close()
			}
		})
	}
	wg.Wait()
	wantFiles(t, dir)
}

// slotLocks returns the kind of slot locks that this system uses.
func slotLocks(t *testing.T) lockfile.Kind {
	t.Helper()
	file := must(os.Open(os.DevNull))(t)
	defer file.Close()
	return lockfile.KindFor(file)
}
