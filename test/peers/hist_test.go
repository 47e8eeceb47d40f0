//go:build linux

package main

import (
	"encoding/json"
	"math"
	"testing"
)

func TestQuantilesAreWithinABucketOfTheTruth(t *testing.T) {
	var h hist
	for i := range int64(100000) {
		h.add(i * 10)
	}
	for _, q := range []float64{0, 0.001, 0.5, 0.99, 0.999} {
		want := q * 1e6
		if got := h.quantile(q); math.Abs(got-want) > want*0.03+10 {
			t.Errorf("quantile %g is %g, want about %g", q, got, want)
		}
	}
}

func TestEveryDurationHasABucket(t *testing.T) {
	var h hist
	for _, v := range []int64{-1, 0, 63, 64, 65, 1 << 40, math.MaxInt64} {
		h.add(v)
	}
	if h.n != 7 || h.max != math.MaxInt64 {
		t.Errorf("counted %d, longest %d", h.n, h.max)
	}
}

func TestHistogramsSurviveJSONAndAddUp(t *testing.T) {
	var h, back, both hist
	for i := range int64(1000) {
		h.add(i * i)
	}
	b, err := json.Marshal(&h)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(b, &back); err != nil {
		t.Fatal(err)
	}
	both.merge(&h)
	both.merge(&back)
	if both.n != 2000 || both.quantile(0.5) != h.quantile(0.5) {
		t.Errorf("%d counts with the middle at %g, want 2000 and %g", both.n, both.quantile(0.5), h.quantile(0.5))
	}
}
