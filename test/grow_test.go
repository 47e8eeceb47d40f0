package test

import (
	"testing"

	"qshm/shm"
)

// Grow: every attachment sees the new size.

func TestGrowIsSeenByEveryAttachment(t *testing.T) {
	const before, after = 100, 100_000
	st := newStore(t)
	a, b := st.start(), st.start()
	mine, same, theirs := a.create("k", before), a.attach("k"), b.attach("k")
	reader := b.attach("k", opts{ReadOnly: true})
	mine.write(before-1, "x")
	mine.grow(after)
	theirs.write(after-1, "y")
	for name, s := range map[string]*attachment{
		"the attachment that grew it": mine, "another of the same process": same, "one of another process": theirs,
		"a read-only one": reader, "a later one": st.start().attach("k"),
	} {
		if n := s.size(); n != after {
			t.Errorf("%s: size %d, want %d", name, n, after)
		}
		if got := s.read(before-1, 2); got != "x\x00" {
			t.Errorf("%s: reads %q around the old end, want %q", name, got, "x\x00")
		}
		if got := s.peek(after-2, 2); got != "\x00y" {
			t.Errorf("%s: reads %q at the new end, want %q", name, got, "\x00y")
		}
	}
	if size := a.stat("k").Size; size != after {
		t.Errorf("Stat: size %d, want %d", size, after)
	}
	theirs.grow(before) // a size that it has already: no error
	_, err := reader.try(request{Op: "grow", N: 2 * after})
	wantError(t, err, shm.ErrReadOnly)
	a.remove("k")
	_, err = mine.try(request{Op: "grow", N: 2 * after})
	wantError(t, err, shm.ErrNotExist)
	if n := theirs.size(); n != after {
		t.Errorf("size %d after a Grow that failed, want %d", n, after)
	}
}

func TestOfManyGrowsAtOnceTheLargestCounts(t *testing.T) {
	st := newStore(t)
	procs := st.startN(4)
	procs[0].create("k", 10)
	var calls []*pending
	var all []*attachment
	for _, p := range procs {
		s := p.attach("k")
		all = append(all, s)
		for _, size := range []int{1000, 30_000, 2000, 70_000} {
			calls = append(calls, s.begin(request{Op: "grow", N: size}))
		}
	}
	for _, c := range calls {
		c.must()
	}
	for _, s := range all {
		if n := s.size(); n != 70_000 {
			t.Errorf("size %d, want 70000", n)
		}
	}
	all[0].poke(69_999, "x")
	if got := all[1].peek(69_999, 1); got != "x" {
		t.Errorf("another process reads %q at the end, want %q", got, "x")
	}
}
