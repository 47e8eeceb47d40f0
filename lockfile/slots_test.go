package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
)

// The slots of the tests.
const (
	testSlots = 16
	testID    = 0x0123456789abcdef
)

// eachKind runs f with each kind of slot locks that this system has.
func eachKind(t *testing.T, f func(t *testing.T, kind Kind)) {
	for kind, name := range map[Kind]string{RecordLocks: "record locks", SiblingFiles: "sibling files"} {
		file, err := Open(emptyFile(t), os.O_RDWR)
		if err != nil {
			t.Fatal(err)
		}
		_, err = NewSlots(file, kind, testSlots, testID)
		file.Close()
		if !errors.Is(err, errors.ErrUnsupported) {
			t.Run(name, func(t *testing.T) { f(t, kind) })
		}
	}
}

// openSlots opens the slots of the file at path, as another process does: what they
// hold and what others hold exclude each other.
func openSlots(t *testing.T, path string, kind Kind) *Slots {
	t.Helper()
	file, err := Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := NewSlots(file, kind, testSlots, testID)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(slots.Close)
	return slots
}

func claim(t *testing.T, s *Slots, i int) {
	t.Helper()
	if ok, err := s.Claim(i); !ok {
		t.Fatalf("Claim(%d) = %v, %v", i, ok, err)
	}
}

// startSlots starts a process with the slots of the file at path open.
func startSlots(t *testing.T, path string, kind Kind) *child {
	t.Helper()
	c := start(t)
	c.do("slots", path, os.O_RDWR, uint32(kind))
	return c
}

func TestSlotLocksExcludeProcesses(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		claim(t, slots, 3)
		other.want(true, "held", 3)
		other.want(true, "others")
		other.want(false, "claim", 3)
		other.want(false, "held", 4)
		other.want(true, "claim", 4)
		if !slots.Held(4) || !slots.OthersHold(all) {
			t.Error("the slot of another process is not seen")
		}
		if ok, err := slots.Claim(4); ok || err != nil {
			t.Errorf("Claim of the slot of another process: %v, %v", ok, err)
		}
		other.do("release", 4)
		if slots.Held(4) || slots.OthersHold(all) {
			t.Error("a slot is held after its release")
		}
		slots.Release(3)
		other.want(false, "held", 3)
		other.want(false, "others")
		other.want(true, "claim", 3)
	})
}

func TestSlotOfADeadProcessIsFree(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		other.want(true, "claim", 0)
		other.want(true, "claim", 1)
		other.want(true, "claim", 9)
		if !slots.OthersHold(all) || !slots.Held(9) {
			t.Fatal("the slots of another process are not seen")
		}
		other.kill()
		eventually(t, "the slots of a dead process are free", func() bool { return !slots.OthersHold(all) })
		for _, i := range []int{0, 1, 9} {
			if slots.Held(i) {
				t.Errorf("slot %d is held", i)
			}
			claim(t, slots, i)
		}
	})
}

func TestOwnSlotsAreHeldButNotByOthers(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		slots := openSlots(t, emptyFile(t), kind)
		claim(t, slots, 0)
		claim(t, slots, 1)
		if !slots.Held(0) || !slots.Held(1) || slots.Held(2) {
			t.Errorf("Held: %v, %v, %v; want true, true, false", slots.Held(0), slots.Held(1), slots.Held(2))
		}
		if slots.OthersHold(all) {
			t.Error("its own slots are taken for those of others")
		}
		if ok, err := slots.Claim(1); ok || err != nil {
			t.Errorf("Claim of an own slot: %v, %v; want false", ok, err)
		}
		slots.Release(1)
		slots.Release(1)
		if slots.Held(1) || !slots.Held(0) {
			t.Error("Release(1) did not release slot 1 alone")
		}
		claim(t, slots, 1)
	})
}

func TestOneOfManyGoroutinesClaims(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, others := openSlots(t, path, kind), openSlots(t, path, kind)
		for i := range testSlots {
			var wg sync.WaitGroup
			var claims atomic.Int32
			for n := range 8 {
				wg.Go(func() {
					s := slots
					if n%4 == 0 {
						s = others
					}
					ok, err := s.Claim(i)
					if err != nil {
						t.Error(err)
					}
					if ok {
						claims.Add(1)
					}
				})
			}
			wg.Wait()
			if n := claims.Load(); n != 1 {
				t.Fatalf("slot %d was claimed %d times", i, n)
			}
		}
	})
}

// Where a question is a lock for a moment, it must not be taken for a holder.
func TestQuestionsAreNotInTheWayOfClaims(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots := openSlots(t, path, kind)
		claim(t, slots, 5)
		slots.Release(5)
		for range 2 {
			startSlots(t, path, kind).do("ask", 5)
		}
		for range 100 {
			claim(t, slots, 5)
			slots.Release(5)
			if slots.Held(5) {
				t.Fatal("a question is taken for a holder")
			}
		}
	})
}

func TestCloseReleases(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		closed, slots := openSlots(t, path, kind), openSlots(t, path, kind)
		claim(t, closed, 2)
		claim(t, closed, 3)
		if !slots.Held(2) || !slots.OthersHold(all) {
			t.Fatal("the slots are not held")
		}
		closed.Close()
		if slots.Held(2) || slots.Held(3) || slots.OthersHold(all) {
			t.Error("the slots are still held")
		}
	})
}

func TestOthersHoldAsksEverySlot(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, others := openSlots(t, path, kind), openSlots(t, path, kind)
		claim(t, slots, 7)
		for _, i := range []int{0, 6, 8, testSlots - 1} {
			claim(t, others, i)
			if !slots.OthersHold(all) {
				t.Errorf("slot %d was not asked for", i)
			}
			others.Release(i)
		}
	})
}

func TestSlotThatDoesNotExist(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots := openSlots(t, path, kind)
		for _, i := range []int{-1, testSlots, 1 << 30} {
			_, err := slots.Claim(i)
			wantPathError(t, err, path, fs.ErrInvalid)
			if slots.Held(i) {
				t.Errorf("slot %d of %d is held", i, testSlots)
			}
			slots.Release(i)
		}
	})
}

func TestUnknownKindIsUnsupported(t *testing.T) {
	path := emptyFile(t)
	file, err := Open(path, os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	for _, kind := range []Kind{0, 3, 1 << 31} {
		_, err := NewSlots(file, kind, testSlots, testID)
		wantPathError(t, err, path, errors.ErrUnsupported)
	}
	if _, err := file.Stat(); err != nil {
		t.Errorf("the file was closed: %v", err)
	}
}

func TestCreatorUsesAKindThatItCanUse(t *testing.T) {
	file, err := Open(emptyFile(t), os.O_RDWR)
	if err != nil {
		t.Fatal(err)
	}
	kind := KindFor(file)
	slots, err := NewSlots(file, kind, testSlots, testID)
	if err != nil {
		t.Fatal(err)
	}
	defer slots.Close()
	claim(t, slots, 0)
	if slots.Atomic() != (kind == RecordLocks) {
		t.Errorf("kind %d: Atomic() = %v", kind, slots.Atomic())
	}
	if forceSiblings && kind != SiblingFiles {
		t.Errorf("KindFor returns %d in spite of the build tag", kind)
	}
}

func TestProcessThatCanOnlyReadCanAsk(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots := openSlots(t, path, kind)
		reader := start(t)
		reader.do("slots", path, os.O_RDONLY, uint32(kind))
		claim(t, slots, 3)
		reader.want(true, "held", 3)
		reader.want(true, "others")
		reader.want(false, "held", 2)
		slots.Release(3)
		reader.want(false, "held", 3)
		reader.want(false, "others")
	})
}

// Record locks leave nothing in the store; sibling files stay until RemoveSiblings.
func TestFilesOfSlotLocks(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots := openSlots(t, path, kind)
		claim(t, slots, 0)
		claim(t, slots, 12)
		slots.Release(12)
		want := []string{"test.qshm"}
		if kind == SiblingFiles {
			want = append(want, "test.qshm.0123456789abcdef.s0", "test.qshm.0123456789abcdef.s12")
		}
		wantFiles(t, filepath.Dir(path), want...)
		slots.Release(0)
		slots.RemoveSiblings()
		wantFiles(t, filepath.Dir(path), "test.qshm")
	})
}

func wantFiles(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if len(names) != len(want) {
		t.Fatalf("files %v, want %v", names, want)
	}
	for i := range names {
		if names[i] != want[i] {
			t.Fatalf("files %v, want %v", names, want)
		}
	}
}
