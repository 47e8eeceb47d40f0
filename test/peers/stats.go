//go:build linux

package main

import (
	"math"
	"slices"
)

// A round that failed is NaN, so that the n-th values of two rows are always of the same round.

func valid(v []float64) []float64 {
	v = slices.DeleteFunc(slices.Clone(v), math.IsNaN)
	slices.Sort(v)
	return v
}

// quantile returns the q-quantile of the rounds, by linear interpolation.
func quantile(v []float64, q float64) float64 {
	if v = valid(v); len(v) == 0 {
		return math.NaN()
	}
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 >= len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

func median(v []float64) float64 { return quantile(v, 0.5) }

func largest(v []float64) float64 { return quantile(v, 1) }

func smallest(v []float64) float64 { return quantile(v, 0) }

// ratios divides round by round: a disturbance of a round affects both sides.
func ratios(a, b []float64) []float64 {
	var r []float64
	for i := range min(len(a), len(b)) {
		r = append(r, a[i]/b[i])
	}
	return r
}
