//go:build linux

package main

import (
	"fmt"
	"math"
)

// duration gives nanoseconds with three digits and the unit that suits.
func duration(ns float64) string {
	switch {
	case math.IsNaN(ns):
		return "-"
	case ns < 999.5:
		return digits(ns) + " ns"
	case ns < 999.5e3:
		return digits(ns/1e3) + " µs"
	case ns < 999.5e6:
		return digits(ns/1e6) + " ms"
	}
	return digits(ns/1e9) + " s"
}

func count(n float64) string {
	switch {
	case math.IsNaN(n):
		return "-"
	case n < 1e3:
		return digits(n)
	case n < 999.5e3:
		return digits(n/1e3) + " k"
	}
	return digits(n/1e6) + " M"
}

func percent(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return fmt.Sprintf("%.1f %%", 100*f)
}

func plain(f float64) string {
	if math.IsNaN(f) {
		return "-"
	}
	return digits(f)
}

// digits formats three significant digits, and a whole number without a fraction.
func digits(f float64) string {
	switch {
	case f == math.Trunc(f) && f < 1000:
		return fmt.Sprintf("%.0f", f)
	case math.Abs(f) < 9.995:
		return fmt.Sprintf("%.2f", f)
	case math.Abs(f) < 99.95:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.0f", f)
}
