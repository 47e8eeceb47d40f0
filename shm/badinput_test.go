package shm

import (
	"io/fs"
	"math"
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
