package test

import (
	"context"
	"errors"
	"math"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"qshm/shm"
)

// What the documentation of QSharedMemory promises, and what QSharedMemory gets wrong: each
// subtest is a line of CONFORMANCE.md, which says what Qt does.

var conformance = []struct {
	name string
	hold func(t *testing.T, st *store)
}{

	// What the documentation of QSharedMemory promises.
	{"create-attaches", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		if s := a.create("k", 100); !s.do(request{Op: "attached"}).OK || a.stat("k").Attached != 1 {
			t.Error("the creator is not attached after Create")
		}
		b.attach("k")
	}},
	{"create-existing", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100)
		_, err := b.tryCreate("k", 100)
		wantError(t, err, shm.ErrExist)
		_, err = a.tryCreate("k", 100)
		wantError(t, err, shm.ErrExist)
	}},
	{"attach-missing", func(t *testing.T, st *store) {
		_, err := st.start().tryAttach("k")
		wantError(t, err, shm.ErrNotExist)
	}},
	{"attach-twice", func(t *testing.T, st *store) {
		a := st.start()
		one, two := a.create("k", 100), a.attach("k")
		two.poke(0, "x")
		if one.peek(0, 1) != "x" || a.stat("k").Attached != 2 {
			t.Error("the second Attach has not made a second attachment to the same memory")
		}
	}},
	{"empty-key", func(t *testing.T, st *store) {
		a := st.start()
		_, err := a.tryCreate("", 100)
		wantError(t, err, shm.ErrKey)
		_, err = a.tryAttach("")
		wantError(t, err, shm.ErrKey)
	}},
	{"size-zero-or-negative", func(t *testing.T, st *store) {
		a := st.start()
		for _, size := range []int{0, -1} {
			_, err := a.tryCreate("k", size)
			wantError(t, err, shm.ErrSize)
		}
	}},
	{"size-and-data", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine := a.create("k", 100)
		theirs := b.attach("k")
		if theirs.size() != 100 {
			t.Errorf("size %d, want 100", theirs.size())
		}
		mine.detach()
		theirs.detach()
		if theirs.size() != 0 {
			t.Error("Size is not 0 after Detach")
		}
	}},
	{"read-only", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100).write(0, "x")
		s := b.attach("k", opts{ReadOnly: true})
		if s.read(0, 1) != "x" || !s.do(request{Op: "readonly"}).OK {
			t.Error("a read-only attachment does not read")
		}
		for _, op := range []string{"writeat", "update", "notify"} {
			_, err := s.try(request{Op: op, Data: []byte("y")})
			wantError(t, err, shm.ErrReadOnly)
		}
		s.lock() // read-only attachments lock too
		s.unlock()
	}},
	{"detach-twice", func(t *testing.T, st *store) {
		s := st.start().create("k", 100)
		s.detach()
		_, err := s.try(request{Op: "detach"})
		wantError(t, err, shm.ErrDetached)
	}},
	{"detach-releases-the-lock", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		mine.lock()
		mine.detach()
		theirs.lock()
	}},
	{"last-detach-destroys", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		mine.detach()
		theirs.poke(0, "x")
		theirs.detach()
		st.wantFiles()
	}},
	{"lock-excludes", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		mine.lock()
		if theirs.tryLock() {
			t.Error("two attachments hold the lock")
		}
		w := theirs.goLock()
		st.awaitWaiter("k")
		mine.unlock()
		w.must()
	}},
	{"unlock-without-lock", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		_, err := mine.try(request{Op: "unlock"})
		wantError(t, err, shm.ErrNotLocked)
		mine.lock()
		_, err = theirs.try(request{Op: "unlock"})
		wantError(t, err, shm.ErrNotLocked)
		if theirs.tryLock() {
			t.Error("another attachment's Unlock has released the lock")
		}
	}},
	{"exit-without-detach", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100).lock()
		a.exit()
		_, err := b.tryAttach("k")
		wantError(t, err, shm.ErrNotExist)
		st.wantFiles()
	}},
	// What it gets wrong.
	{"crash-of-the-last", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100)
		a.kill()
		_, err := b.tryAttach("k")
		wantError(t, err, shm.ErrNotExist)
		st.wantFiles()
	}},
	{"crash-of-one", func(t *testing.T, st *store) {
		a, b, c := st.start(), st.start(), st.start()
		a.create("k", 100)
		theirs := b.attach("k")
		a.kill()
		theirs.detach() // the last live process
		st.wantFilesAfterSweep()
		c.create("k", 100).detach()
		st.wantFiles()
	}},
	{"crash-inside-the-lock", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		mine.lock()
		theirs.takeOverFrom(a)
	}},
	{"failed-create-takes-no-lock", func(t *testing.T, st *store) {
		a, b, c := st.start(), st.start(), st.start()
		mine := a.create("k", 100)
		mine.lock()
		theirs := c.attach("k")
		_, err := b.tryCreate("k", 100)
		wantError(t, err, shm.ErrExist)
		if theirs.tryLock() {
			t.Error("a failed Create has taken the lock from its owner")
		}
		mine.unlock()
	}},
	{"creators-exit-keeps-the-lock", func(t *testing.T, st *store) {
		a, b, c := st.start(), st.start(), st.start()
		mine := a.create("k", 100)
		one := b.attach("k")
		mine.detach()
		two := c.attach("k")
		one.lock()
		if two.tryLock() {
			t.Error("the attachments from before and after the creator's exit do not exclude each other")
		}
	}},
	{"one-create-after-a-crash", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100)
		a.kill()
		b.create("k", 100) // the first time
	}},
	{"nothing-hangs-behind-the-lock", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100).lock()
		s := b.attach("k")
		s.detach()
		_, err := b.tryCreate("k", 100)
		wantError(t, err, shm.ErrExist)
	}},
	{"trying-and-timing-out", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		a.create("k", 100).lock()
		s := b.attach("k")
		s.wantHeld()
	}},
	{"goroutines-exclude-each-other", func(t *testing.T, st *store) {
		s := st.start().create("k", 100)
		s.lock()
		if s.tryLock() {
			t.Error("one attachment holds its lock twice")
		}
	}},
	{"no-lock-without-attachment", func(t *testing.T, st *store) {
		a := st.start()
		_, err := a.tryAttach("k") // no Segment, so Lock cannot be called
		wantError(t, err, shm.ErrNotExist)
		s := a.create("k", 100)
		s.detach()
		for _, op := range []string{"lock", "trylock", "unlock", "update", "view", "writeat", "readat", "snapshot", "wait", "notify"} {
			_, err := s.try(request{Op: op})
			wantError(t, err, shm.ErrDetached)
		}
	}},
	{"memory-is-there-at-creation", func(t *testing.T, st *store) {
		if math.MaxInt == math.MaxInt32 {
			t.Skip("there may be as much memory as this machine can address")
		}
		// 16 TiB are more than machines have, and less than a sparse file can have.
		for _, size := range []int64{math.MaxInt / 2, 1 << 44} {
			_, err := st.start().tryCreate("k", int(size))
			if !errors.Is(err, shm.ErrNoSpace) && !errors.Is(err, shm.ErrSize) {
				t.Errorf("Create of %d bytes: %v, want %v or %v", size, err, shm.ErrNoSpace, shm.ErrSize)
			}
		}
		st.wantFiles()
	}},
	{"size-is-exact", func(t *testing.T, st *store) {
		a := st.start()
		for i, size := range []int{1, 4095, 4096, 4097} {
			if got := a.create(strings.Repeat("k", i+1), size).size(); got != size {
				t.Errorf("size %d, want %d", got, size)
			}
		}
	}},
	{"any-key", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		for i, k := range []string{
			strings.Repeat("long", 10000), strings.Repeat("long", 10000) + "er", "a/b", "../a", "a\x00b", "\xff\xfe", "Schlüssel", "K", "k", " ", ".",
		} {
			mark := string(rune('a' + i))
			a.create(k, 16).poke(0, mark)
			if got := b.attach(k).peek(0, 1); got != mark {
				t.Errorf("key %.10q: read %q, want %q", k, got, mark)
			}
		}
	}},
	{"growing", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 5), b.attach("k")
		mine.write(0, "short")
		mine.grow(10_001)
		mine.write(9995, "longer")
		if got := theirs.read(0, 5) + theirs.read(9995, 6); got != "shortlonger" || theirs.size() != 10_001 {
			t.Errorf("the other process reads %q of %d bytes, want %q of %d", got, theirs.size(), "shortlonger", 10_001)
		}
	}},
	{"waiting-for-a-change", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		mine, theirs := a.create("k", 100), b.attach("k")
		w := theirs.begin(request{Op: "wait", Version: theirs.version()})
		st.awaitWatcher("k")
		mine.write(0, "x")
		w.must()
	}},
	{"initialised-before-the-first-attach", func(t *testing.T, st *store) {
		a, b := st.start(), st.start()
		creating := a.begin(request{Op: "slowinit", Key: key("k"), N: 100})
		eventually(t, "creating the file", func() bool { info, err := os.Stat(st.path("k")); return err == nil && info.Size() > 0 })
		attaching := b.begin(request{Op: "attach", Key: key("k")})
		a.do(request{Op: "go"})
		creating.must()
		s := &attachment{p: b, handle: attaching.must().Handle}
		if got := s.peek(0, 4); got != "slow" {
			t.Errorf("Attach returned when the memory contained %q, want %q", got, "slow")
		}
	}},
}

func init() {
	// slowinit is Create with an Init that writes when the gate opens.
	extra["slowinit"] = func(c *child, _ context.Context, r request, a *answer) error {
		s, err := shm.Create(string(r.Key), r.N, shm.Init(func(data []byte) error {
			<-c.gate
			copy(data, "slow")
			return nil
		}))
		if err == nil {
			c.keep(s, a)
		}
		return err
	}
}

func TestConformance(t *testing.T) {
	for _, c := range conformance {
		t.Run(c.name, func(t *testing.T) { c.hold(t, newStore(t)) })
	}
}

// The table has one line for each test, in the same order.
func TestConformanceTable(t *testing.T) {
	text, err := os.ReadFile("CONFORMANCE.md")
	if err != nil {
		t.Fatal(err)
	}
	var lines, tests []string
	for _, m := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` ").FindAllSubmatch(text, -1) {
		lines = append(lines, string(m[1]))
	}
	for _, c := range conformance {
		tests = append(tests, c.name)
	}
	if !slices.Equal(lines, tests) {
		t.Errorf("CONFORMANCE.md has the lines\n%q\nwant those of the tests:\n%q", lines, tests)
	}
}
