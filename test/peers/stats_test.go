//go:build linux

package main

import (
	"math"
	"testing"
)

func TestRoundsThatFailedDoNotCount(t *testing.T) {
	nan := math.NaN()
	if got := median([]float64{3, nan, 1, 2}); got != 2 {
		t.Errorf("median %g, want 2", got)
	}
	if got := median(ratios([]float64{2, nan, 8}, []float64{1, 1, 4})); got != 2 {
		t.Errorf("ratio %g, want 2", got)
	}
	if !math.IsNaN(median(nil)) {
		t.Error("the median of nothing is a number")
	}
}

func TestQuantilesFallBetweenRounds(t *testing.T) {
	if got := quantile([]float64{1, 2, 3, 4}, 0.25); got != 1.75 {
		t.Errorf("%g, want 1.75", got)
	}
}
