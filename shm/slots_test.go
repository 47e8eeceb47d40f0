package shm

import (
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"qshm/lockfile"
)

// foreignSlots opens the segment's slot locks as another process would.
func foreignSlots(t testing.TB, seg *Segment) *lockfile.Slots {
	t.Helper()
	file := must(lockfile.Open(seg.m.path, os.O_RDWR))(t)
	locks := must(lockfile.NewSlots(file, seg.m.shape.locks, seg.m.slots, seg.m.shape.id))(t)
	t.Cleanup(locks.Close)
	return locks
}

func claimAll(t testing.TB, locks *lockfile.Slots, slots ...int) {
	t.Helper()
	for _, i := range slots {
		if ok, err := locks.Claim(i); !ok || err != nil {
			t.Fatalf("claim slot %d: %v, %v", i, ok, err)
		}
	}
}

func TestMaxAttachmentsIsExact(t *testing.T) {
	store(t)
	counts := []int{1, 2, 100}
	if inFirstPage := (minHeader - slotsOff) / slotSize; mapAlign() == minHeader {
		counts = append(counts, inFirstPage, inFirstPage+1)
	}
	for _, n := range counts {
		segs := []*Segment{create(t, key, 1, MaxAttachments(n))}
		for range n - 1 {
			segs = append(segs, attach(t, key))
		}
		_, err := Attach(key)
		wantError(t, err, "attach", key, ErrNoSpace)
		if info := must(Stat(key))(t); info.Attached != n || info.MaxAttached != n {
			t.Errorf("%d of %d attached, want %d", info.Attached, info.MaxAttached, n)
		}
		for _, seg := range segs {
			detach(t, seg)
		}
	}
}

func TestFirstPageHasSlotsWithoutMaxAttachments(t *testing.T) {
	store(t)
	create(t, key, 1)
	if info, want := must(Stat(key))(t), (max(minHeader, mapAlign())-slotsOff)/slotSize; info.MaxAttached != want || want < 440 {
		t.Errorf("%d attachments are possible, want %d", info.MaxAttached, want)
	}
}

func TestImpossibleNumbersOfAttachmentsAreRefused(t *testing.T) {
	dir := store(t)
	for n, shown := range map[int]string{0: "(0)", -1: "(-1)", -7: "(-7)", maxSlots + 1: "(65536)", 1 << 30: "(1073741824)"} {
		_, err := Create(key, 1, MaxAttachments(n))
		wantError(t, err, "create", key, ErrSize)
		if !strings.Contains(err.Error(), "MaxAttachments"+shown) {
			t.Errorf("%v: does not say %s", err, shown)
		}
		wantFiles(t, dir)
	}
}

func TestTooManyAttachmentsAreErrNoSpace(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 10, MaxAttachments(2))
	second := attach(t, key)
	before := files(t, dir)
	for _, opts := range [][]Option{nil, {ReadOnly()}} {
		_, err := Attach(key, opts...)
		wantError(t, err, "attach", key, ErrNoSpace)
		if !strings.Contains(err.Error(), "all 2 ") {
			t.Errorf("%v: does not say how many attachments there can be", err)
		}
		_, _, err = Open(key, 10, opts...)
		wantError(t, err, "open", key, ErrNoSpace)
	}
	wantFiles(t, dir, before...)
	if info := must(seg.Info())(t); info.Attached != 2 || seg.head.refs.Load() != 2 {
		t.Errorf("%d attached, %d references, want 2", info.Attached, seg.head.refs.Load())
	}
	detach(t, second)
	attach(t, key)
}

func TestLastOfTheMostSlotsCanLock(t *testing.T) {
	store(t)
	seg := create(t, key, 10, MaxAttachments(maxSlots))
	seg.Data()[9] = 1
	for i := 1; i < maxSlots-1; i++ {
		seg.m.slot[i].Store(slotTaken | 42) // by a dead process; free slots are claimed first
	}
	last := attach(t, key)
	if last.slot != maxSlots-1 {
		t.Fatalf("attached in slot %d, want the last", last.slot)
	}
	lock(t, last)
	if ok, _ := seg.TryLock(); ok || ownerSlot(seg.head.word.Load()) != maxSlots-1 {
		t.Error("the last slot cannot hold the lock")
	}
	unlock(t, last)
	if next := attach(t, key); next.slot != 1 || last.Data()[9] != 1 {
		t.Errorf("attached in slot %d, want the first one of a dead process", next.slot)
	}
}

func TestClaimWritesTheSlot(t *testing.T) {
	store(t)
	seg := create(t, key, 1, MaxAttachments(2))
	s := &seg.m.slot[1]
	var ids []uint64
	for n := range uint64(3) {
		reader := attach(t, key, ReadOnly())
		ids = append(ids, reader.ID())
		if w, want := s.Load(), (n+1)<<slotSerial|slotReadOnly|slotTaken|uint64(uint32(os.Getpid())); w != want {
			t.Errorf("the slot is %#x, want %#x", w, want)
		}
		detach(t, reader)
		if w, want := s.Load(), (n+1)<<slotSerial; w != want {
			t.Errorf("the slot after detach is %#x, want %#x", w, want)
		}
	}
	s.Store(1<<64 - 1<<slotSerial) // the serial number wraps
	attach(t, key)
	if w, want := s.Load(), slotTaken|uint64(uint32(os.Getpid())); w != want {
		t.Errorf("the slot is %#x, want %#x", w, want)
	}
	if ids[0] == ids[1] || ids[1] == ids[2] {
		t.Errorf("attachments that had the same slot have the IDs %x", ids)
	}
}

// The reference count is for people; after a crash it may be too high until the slot
// is claimed again, but it is never too low.
func TestReferencesAreNeverTooFew(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if a, err := Attach(key); err == nil {
					a.Close()
				}
			}
		})
	}
	for range 3000 {
		// First the slots, then the count. A slot that was cleared in between makes
		// the count smaller, so the slots must be the same afterwards.
		before, taken := slotWords(seg)
		refs := seg.head.refs.Load()
		if after, _ := slotWords(seg); after == before && refs < taken {
			t.Errorf("%d references for %d attachments", refs, taken)
			break
		}
	}
	close(stop)
	wg.Wait()
	if refs := seg.head.refs.Load(); refs != 1 {
		t.Errorf("%d references in the end, want 1", refs)
	}
}

func slotWords(seg *Segment) (words [4]uint64, taken uint32) {
	for i := range words {
		if words[i] = seg.m.slot[i].Load(); words[i]&slotTaken != 0 {
			taken++
		}
	}
	return words, taken
}

func TestClaimTakesSlotsOfTheDead(t *testing.T) {
	store(t)
	create(t, key, 1, MaxAttachments(2))
	for range 3 {
		runThenKill(t, "attach and die", key)
	}
	attach(t, key)
}

// A slot that is free but whose lock is held belongs to an attachment that is about to
// begin or to end.
func TestClaimLeavesSlotsThatAreLocked(t *testing.T) {
	store(t)
	seg := create(t, key, 1, MaxAttachments(4))
	claimAll(t, foreignSlots(t, seg), 1, 2)
	if a := attach(t, key); a.slot != 3 {
		t.Errorf("attached in slot %d, want 3", a.slot)
	}
	_, err := Attach(key)
	wantError(t, err, "attach", key, ErrNoSpace)
}

// After recover, the lock word does not name the slot, and the slot is free.
func TestRecoverClearsWhatADeadProcessLeft(t *testing.T) {
	const taken = 5<<slotSerial | slotTaken | slotReadOnly | 42
	for name, c := range map[string]struct {
		slot, word         uint64 // before
		refs               uint32
		wantSlot, wantWord uint64
		wantRefs           uint32
	}{
		"free slot":                {5 << slotSerial, 0, 1, 5 << slotSerial, 0, 1},
		"taken slot":               {taken, 0, 2, 5 << slotSerial, 0, 1},
		"taken slot with the lock": {taken, 9<<32 | 2, 2, 5 << slotSerial, 10<<32 | abandonedBit, 1},
		"with waiters":             {taken, waitersBit | starvingBit | 3*detachOne | 2, 2, 5 << slotSerial, 1<<32 | starvingBit | abandonedBit | 3*detachOne, 1},
		"another owner":            {taken, 9<<32 | 3, 2, 5 << slotSerial, 9<<32 | 3, 1},
		"abandoned already":        {taken, 9<<32 | abandonedBit | 2, 2, 5 << slotSerial, 10<<32 | abandonedBit, 1},
		// The process died in Detach, after it had cleared its slot.
		"free slot with the lock":          {5 << slotSerial, 1<<64 - 1<<32 | 2, 1, 5 << slotSerial, abandonedBit, 1},
		"the count is too high already":    {taken, 0, 9, 5 << slotSerial, 0, 8},
		"the count is too low: hand-made":  {taken, 0, 0, 5 << slotSerial, 0, 1<<32 - 1},
		"the word names no slot: foreign":  {taken, 1000, 2, 5 << slotSerial, 1000, 1},
		"the serial number is the largest": {1<<64 - 1<<slotSerial + slotTaken, 0, 2, 1<<64 - 1<<slotSerial, 0, 1},
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			seg := create(t, key, 1, MaxAttachments(3))
			claimAll(t, seg.m.locks, 1)
			seg.m.slot[1].Store(c.slot)
			seg.head.word.Store(c.word)
			seg.head.refs.Store(c.refs)
			seg.head.event.Store(eventArmed)
			seg.m.recover(1)
			if got := seg.m.slot[1].Load(); got != c.wantSlot {
				t.Errorf("the slot is %#x, want %#x", got, c.wantSlot)
			}
			if c.slot&slotTaken != 0 { // the dead process did not detach
				c.wantWord += detachOne
			}
			if got := seg.head.word.Load(); got != c.wantWord {
				t.Errorf("the word is %#x, want %#x", got, c.wantWord)
			}
			if got := seg.head.refs.Load(); got != c.wantRefs {
				t.Errorf("%d references, want %d", got, c.wantRefs)
			}
			if moved := c.wantWord>>32 != c.word>>32; seg.head.event.Load() == eventArmed == moved {
				t.Errorf("the version has moved: %v, the event word is %#x", moved, seg.head.event.Load())
			}
			seg.m.locks.Release(1)
			seg.head.word.Store(0)
		})
	}
}

func TestTakeOverOfADeadOwner(t *testing.T) {
	store(t)
	seg := create(t, key, 1, MaxAttachments(2))
	dead := otherProcess(t, seg)
	lock(t, dead)
	w := seg.head.word.Or(waitersBit|starvingBit|5*detachOne) | waitersBit | starvingBit | 5*detachOne
	if seg.m.takeOver(w, seg.owner) {
		t.Fatal("the lock was taken from a live owner")
	}
	die(dead)
	if seg.m.takeOver(w+versionOne, seg.owner) || seg.m.takeOver(w&^waitersBit, seg.owner) || seg.m.takeOver(w+detachOne, seg.owner) {
		t.Error("the lock was taken over by a word that has changed since")
	}
	seg.head.event.Store(eventArmed)
	if !seg.m.takeOver(w, seg.owner) {
		t.Fatal("the lock was not taken from a dead owner")
	}
	if got, want := seg.head.word.Load(), versionOne|abandonedBit|waitersBit|5*detachOne|seg.owner; got != want {
		t.Errorf("the word is %#x, want %#x", got, want)
	}
	if seg.head.event.Load() == eventArmed {
		t.Error("waiters for the version were not woken")
	}
	unlock(t, seg)
	detach(t, attach(t, key)) // claims the dead owner's slot
	if s := seg.m.slot[1].Load(); s&slotTaken != 0 || seg.head.refs.Load() != 1 {
		t.Errorf("slot %#x, %d references: the slot was not recovered", s, seg.head.refs.Load())
	}
}

// A take-over asks whether the owner is alive, and then swaps the word that it has read
// before. So when another attachment has claimed the owner's slot and has the lock, the
// word must be another, whatever the owner did last.
func TestWordOfADeadOwnerNeverComesBack(t *testing.T) {
	for name, end := range map[string]func(t *testing.T, dead *Segment){
		"died with the lock":     func(t *testing.T, dead *Segment) { die(dead) },
		"died after an unlock":   func(t *testing.T, dead *Segment) { unlock(t, dead); die(dead) },
		"died after a View":      func(t *testing.T, dead *Segment) { dead.unlock(false, false); die(dead) },
		"detached with the lock": func(t *testing.T, dead *Segment) { detach(t, dead) },
		"detached after a View":  func(t *testing.T, dead *Segment) { dead.unlock(false, false); detach(t, dead) },
		"died in Detach, with its slot free": func(t *testing.T, dead *Segment) {
			dead.unlock(false, false)
			dead.releaseLast()
			dead.m.clearOwn(dead.slot)
			die(dead)
		},
		"died in Detach, with its slot": func(t *testing.T, dead *Segment) { dead.unlock(false, false); dead.releaseLast(); die(dead) },
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			seg := create(t, key, 1, MaxAttachments(2))
			dead := otherProcess(t, seg)
			lock(t, dead)
			w := seg.head.word.Load()
			end(t, dead)
			next := attach(t, key)
			if next.slot != dead.slot {
				t.Fatalf("attached in slot %d, want that of the dead owner, %d", next.slot, dead.slot)
			}
			lock(t, next)
			if seg.head.word.Load() == w {
				t.Errorf("the word is %#x again: a take-over that began before would take the lock from a live owner", w)
			}
			unlock(t, next)
		})
	}
}

// Any process that may write the file can write any word: the lock can be taken then,
// or the wait ends with its context, and nothing crashes.
func TestTakeOverOfAWordOfAnyValue(t *testing.T) {
	for name, c := range map[string]struct {
		owner uint64
		taken bool // the lock can be taken
	}{
		"free":                      {0, true},
		"own slot":                  {1, false},
		"own other slot":            {2, false},
		"slot of another process":   {3, false},
		"slot of a dead process":    {4, true},
		"slot that was never taken": {5, true},
		"free slot that is locked":  {6, false},
		"one beyond the last slot":  {9, true},
		"the largest":               {ownerMask, true},
	} {
		t.Run(name, func(t *testing.T) {
			store(t)
			seg := create(t, key, 8, MaxAttachments(8))
			attach(t, key)
			otherProcess(t, seg)
			die(otherProcess(t, seg))
			claimAll(t, foreignSlots(t, seg), 5)
			for _, bits := range []uint64{0, waitersBit, starvingBit, abandonedBit, detachMask, 1<<64 - 1<<32} {
				word := c.owner | bits
				seg.head.word.Store(word)
				ok, err := seg.TryLock()
				if ok != c.taken || err != nil {
					t.Errorf("word %#x: TryLock %v, %v, want %v", word, ok, err, c.taken)
				}
				must(seg.Info())(t)
				must(Stat(key))(t)
				if !ok && seg.head.word.Load() != word {
					t.Errorf("word %#x: TryLock has left %#x", word, seg.head.word.Load())
				}
				if ok {
					unlock(t, seg)
				}
			}
			seg.head.word.Store(0)
		})
	}
}

// A process that attaches can find a slot whose owner the word names though the slot
// is free: recover must look at the word whatever the slot says.
func TestClaimOfAFreeSlotThatTheWordNames(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	seg.head.word.Store(ownerBits(1))
	if a := attach(t, key); a.slot != 1 {
		t.Fatalf("attached in slot %d, want 1", a.slot)
	}
	if w := seg.head.word.Load(); w&ownerMask != 0 || w&abandonedBit == 0 {
		t.Errorf("the word is %#x: a new attachment owns the lock", w)
	}
}

// The same with many take-overs at once, in this process and another one.
func TestTakeOverDoesNotRobASuccessor(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	locks := foreignSlots(t, seg) // of the processes that die, and of their successors
	const slot = 2
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var last atomic.Uint64 // the word that the dead owner had
	var takeOvers atomic.Int64
	for _, s := range []*Segment{seg, otherProcess(t, seg)} {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if s.m.takeOver(last.Load(), s.owner) {
					takeOvers.Add(1)
					s.unlock(false, false)
				}
				runtime.Gosched()
			}
		})
	}
	word := &seg.head.word
	take := func() uint64 {
		for {
			if w := word.Load(); w&ownerMask == 0 && word.CompareAndSwap(w, w|ownerBits(slot)) {
				return w | ownerBits(slot)
			}
			runtime.Gosched()
		}
	}
	claim := func() {
		claimAll(t, locks, slot)
		seg.m.recover(slot)
		seg.m.publish(slot, false)
	}
	n, robbed := 300, 0
	if testing.Short() {
		n = 50
	}
	for i := range n {
		claim()
		last.Store(take())
		if i%2 == 0 {
			locks.Release(slot) // the owner dies
			for ownerSlot(word.Load()) == slot && i%4 == 0 {
				runtime.Gosched()
			}
		} else {
			word.And(^uint64(ownerMask)) // the owner unlocks without having written, and dies
			locks.Release(slot)
		}
		claim()
		take()
		// Long enough for a take-over that has found the slot's lock free.
		for end := time.Now().Add(30 * time.Microsecond); time.Now().Before(end); runtime.Gosched() {
			if ownerSlot(word.Load()) != slot {
				robbed++
				break
			}
		}
		word.And(^uint64(ownerMask))
		locks.Release(slot)
	}
	close(stop)
	wg.Wait()
	if robbed > 0 {
		t.Errorf("the lock was taken %d times from a live owner", robbed)
	}
	if takeOvers.Load() < int64(n)/8 {
		t.Errorf("only %d take-overs in %d rounds", takeOvers.Load(), n)
	}
	claim()
	seg.m.clear(slot, seg.m.slot[slot].Load())
}

// Two processes that find a dead owner at the same time do not both take the lock.
func TestOneOfManyTakesOver(t *testing.T) {
	store(t)
	seg := create(t, key, 1)
	segs := []*Segment{seg, attach(t, key), otherProcess(t, seg), otherProcess(t, seg)}
	n := 100
	if testing.Short() {
		n = 20
	}
	for range n {
		dead := otherProcess(t, seg)
		lock(t, dead)
		w := seg.head.word.Load()
		die(dead)
		var took atomic.Int32
		var wg sync.WaitGroup
		for _, s := range segs {
			wg.Go(func() {
				for ownerSlot(s.head.word.Load()) == dead.slot {
					if s.m.takeOver(w, s.owner) {
						took.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if took.Load() != 1 {
			t.Fatalf("%d attachments have taken the lock over", took.Load())
		}
		i := ownerSlot(seg.head.word.Load())
		for _, s := range segs {
			if s.slot == i {
				unlock(t, s)
			}
		}
		dead.m.close()
	}
}
