package lockfile

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/gofrs/flock"
)

func TestNamesOfSiblingFiles(t *testing.T) {
	slots := openSlots(t, emptyFile(t), SiblingFiles)
	for _, i := range []int{0, 7, testSlots - 1} {
		name := filepath.Base(slots.siblingPath(i))
		if segment, ok := segmentOf(name); !ok || segment != "test.qshm" {
			t.Errorf("segmentOf(%q) = %q, %v", name, segment, ok)
		}
	}
	for _, name := range []string{
		"", ".", "test.qshm", "test.qshm.s0", "test.qshm.0123456789abcdef", "test.qshm.0123456789abcdef.s", "test.qshm.0123456789abcdef.0",
		"test.qshm.0123456789abcdef.s00", "test.qshm.0123456789abcdef.s-1", "test.qshm.0123456789abcdef.s+1", "test.qshm.0123456789ABCDEF.s0",
		"test.qshm.0123456789abcde.s0", "test.qshm.+123456789abcdef.s0", "test.0123456789abcdef.s0", "0123456789abcdef.s0",
		"test.qshm.0123456789abcdef.s99999999999", "test.qshm.0123456789abcdef.s0.tmp",
	} {
		if segment, ok := segmentOf(name); ok {
			t.Errorf("segmentOf(%q) = %q", name, segment)
		}
	}
}

// Attachments of a removed segment keep their slots while a successor has its path.
func TestSiblingFilesOfASuccessorAreOthers(t *testing.T) {
	path := emptyFile(t)
	before := openSlots(t, path, SiblingFiles)
	claim(t, before, 0)
	if err := lock(t, path).Remove(); err != nil {
		t.Fatal(err)
	}
	f, err := Create(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	f.Unlock()
	file, err := Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	after, err := NewSlots(file, SiblingFiles, testSlots, testID+1)
	if err != nil {
		t.Fatal(err)
	}
	defer after.Close()
	if after.OthersHold(all) {
		t.Error("the successor's slots are held")
	}
	claim(t, after, 0)
	after.Release(0)
	after.RemoveSiblings()
	if !openSlots(t, path, SiblingFiles).Held(0) {
		t.Error("the successor's end removed the file of a slot that is held")
	}
}

func TestRemoveSiblingsRemovesThoseOfPredecessors(t *testing.T) {
	path := emptyFile(t)
	slots := openSlots(t, path, SiblingFiles)
	claim(t, slots, 3)
	slots.Release(3)
	dir := filepath.Dir(path)
	for _, name := range []string{"test.qshm.00000000000000ff.s4", "other.qshm.00000000000000ff.s4", "test.qshm.notes"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	slots.RemoveSiblings()
	wantFiles(t, dir, "other.qshm.00000000000000ff.s4", "test.qshm", "test.qshm.notes")
}

func TestRemoveOrphans(t *testing.T) {
	path := emptyFile(t)
	dir := filepath.Dir(path)
	slots := openSlots(t, path, SiblingFiles)
	claim(t, slots, 1)
	claim(t, slots, 2)
	slots.Release(2)
	names := []string{
		"destroyed.qshm.00000000000000ff.s0", "destroyed.qshm.00000000000000ff.s12", // orphans
		"live.qshm", "live.qshm.00000000000000ff.s0", // of a segment that exists
		"destroyed.00000000000000ff.s0", "destroyed.qshm.ff.s0", "notes", // foreign
	}
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// The names of test.qshm's sibling files are told, its own is not: it has been
	// removed, and one of its slots is held.
	names = append(names, "test.qshm.0123456789abcdef.s1", "test.qshm.0123456789abcdef.s2")
	RemoveOrphans(dir, names)
	wantFiles(t, dir, "destroyed.00000000000000ff.s0", "destroyed.qshm.ff.s0", "live.qshm", "live.qshm.00000000000000ff.s0",
		"notes", "test.qshm", "test.qshm.0123456789abcdef.s1")
	if claim(t, slots, 2); !openSlots(t, path, SiblingFiles).Held(2) {
		t.Error("a slot is not held after its file was removed and made again")
	}
}

// Claims and the removal of orphans exclude each other.
func TestClaimWhileOrphansAreRemoved(t *testing.T) {
	path := emptyFile(t)
	dir := filepath.Dir(path)
	slots, others := openSlots(t, path, SiblingFiles), openSlots(t, path, SiblingFiles)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				RemoveOrphans(dir, []string{filepath.Base(slots.siblingPath(0))})
			}
		}
	}()
	defer func() { close(stop); <-stopped }()
	claims := 0
	for deadline := time.Now().Add(10 * time.Second); claims < 200 && time.Now().Before(deadline); {
		ok, err := slots.Claim(0)
		if err != nil {
			if runtime.GOOS == "windows" {
				continue // the file is about to be removed
			}
			t.Fatal(err)
		}
		if ok {
			claims++
			if !others.Held(0) {
				t.Fatal("claimed, but not held")
			}
			slots.Release(0)
		}
	}
	if claims < 200 {
		t.Errorf("%d claims only", claims)
	}
}

func TestSharedLockOnASiblingFileIsNoHolder(t *testing.T) {
	slots := openSlots(t, emptyFile(t), SiblingFiles)
	claim(t, slots, 0)
	slots.Release(0)
	reader := flock.New(slots.siblingPath(0), flock.SetFlag(os.O_RDONLY))
	if ok, err := reader.TryRLock(); !ok {
		t.Fatal(err)
	}
	if slots.Held(0) || slots.OthersHold(all) {
		t.Error("a shared lock is taken for a holder")
	}
	if ok, err := slots.Claim(0); ok || err != nil {
		t.Errorf("Claim: %v, %v; want false", ok, err)
	}
	reader.Unlock()
	claim(t, slots, 0)
}

// A question is a shared lock for a moment. Claim waits for its end.
func TestClaimWaitsForTheEndOfAQuestion(t *testing.T) {
	slots := openSlots(t, emptyFile(t), SiblingFiles)
	claim(t, slots, 0)
	slots.Release(0)
	for range 20 { // the end of the question may come too late on a busy machine
		question := flock.New(slots.siblingPath(0), flock.SetFlag(os.O_RDONLY))
		if ok, err := question.TryRLock(); !ok {
			t.Fatal(err)
		}
		done := make(chan struct{})
		time.AfterFunc(3*time.Millisecond, func() { question.Unlock(); close(done) })
		ok, err := slots.Claim(0)
		<-done
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			return
		}
	}
	t.Error("Claim gives up at once")
}

func TestOnlySlotsThatAreTakenAreAsked(t *testing.T) {
	path := emptyFile(t)
	slots, others := openSlots(t, path, SiblingFiles), openSlots(t, path, SiblingFiles)
	claim(t, others, 4)
	if slots.OthersHold(func(i int) bool { return i != 4 }) {
		t.Error("a slot was asked that is not taken")
	}
	if !slots.OthersHold(func(i int) bool { return i == 4 }) {
		t.Error("the slot that is taken was not asked")
	}
}

// Sibling files are found by their paths. If these do not lead to the store any more,
// the slots of other processes count as held.
func TestSlotsOfAnEmptiedStoreCountAsHeld(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("a file that is locked cannot be removed on Windows")
	}
	path := emptyFile(t)
	slots, others := openSlots(t, path, SiblingFiles), openSlots(t, path, SiblingFiles)
	claim(t, slots, 0)
	claim(t, others, 1)
	for _, i := range []int{0, 1} {
		if err := os.Remove(slots.siblingPath(i)); err != nil {
			t.Fatal(err)
		}
	}
	if !slots.Held(1) || !slots.OthersHold(all) {
		t.Error("a slot whose file was removed counts as free")
	}
}
