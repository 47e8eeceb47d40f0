//go:build linux

package main

import (
	"encoding/json"
	"math/bits"
)

// hist is a histogram of nanoseconds: exact below 64, then 32 buckets for each power of two, 3 % wide. src/peer.h has the
// same buckets, so that those of workers in C and in Go can be added.
type hist struct {
	n, max int64
	count  [2048]int64
}

func (h *hist) add(v int64) {
	v = max(v, 0)
	i := v
	if v >= 64 {
		e := bits.Len64(uint64(v)) - 1
		i = 64 + int64(e-6)*32 + (v>>(e-5))&31
	}
	h.count[i]++
	h.n++
	h.max = max(h.max, v)
}

func (h *hist) merge(o *hist) {
	for i, n := range o.count {
		h.count[i] += n
	}
	h.n += o.n
	h.max = max(h.max, o.max)
}

// quantile gives the middle of the bucket in which the q-th part of the counts ends.
func (h *hist) quantile(q float64) float64 {
	rank := int64(q * float64(h.n))
	for i, n := range h.count {
		if rank -= n; rank < 0 {
			return middle(i)
		}
	}
	return float64(h.max)
}

func middle(bucket int) float64 {
	if bucket < 64 {
		return float64(bucket)
	}
	e := (bucket-64)/32 + 6
	width := float64(int64(1) << (e - 5))
	return float64(int64(32+(bucket-64)%32))*width + width/2
}

// MarshalJSON lists the buckets that are not empty.
func (h *hist) MarshalJSON() ([]byte, error) {
	pairs := [][2]int64{}
	for i, n := range h.count {
		if n > 0 {
			pairs = append(pairs, [2]int64{int64(i), n})
		}
	}
	return json.Marshal(pairs)
}

// UnmarshalJSON reads what MarshalJSON writes; the maximum comes beside it, and is the caller's to set.
func (h *hist) UnmarshalJSON(b []byte) error {
	var pairs [][2]int64
	if err := json.Unmarshal(b, &pairs); err != nil {
		return err
	}
	for _, p := range pairs {
		h.count[p[0]] += p[1]
		h.n += p[1]
	}
	return nil
}
