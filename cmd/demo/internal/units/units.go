// Package units reads and writes numbers of bytes and lengths of time as people do.
package units

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a number of bytes; as a flag it takes what Parse takes. The help of a flag
// names no default if that is less than 1.
type Size int64

func (s *Size) String() string {
	if *s < 1 {
		return ""
	}
	return Format(int64(*s))
}

func (s *Size) Type() string { return "SIZE" }

func (s *Size) Set(text string) error {
	n, err := Parse(text)
	if err == nil && n > math.MaxInt {
		err = errors.New("more than this machine can map")
	}
	*s = Size(n)
	return err
}

var factors = map[string]int64{
	"": 1, "b": 1,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

var errSize = errors.New("want a whole number of bytes, or one with a unit: 4096, 64KiB, 1M (K, M, G and KiB, MiB, GiB count by 1024; KB, MB, GB by 1000)")

// Parse reads a number of bytes, with or without a unit.
func Parse(text string) (int64, error) {
	digits := strings.TrimSpace(text)
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	unit := ""
	if end >= 0 {
		digits, unit = digits[:end], strings.ToLower(strings.TrimSpace(digits[end:]))
	}
	factor, known := factors[unit]
	if !known || digits == "" {
		return 0, errSize
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n > math.MaxInt64/factor {
		return 0, fmt.Errorf("too large: the most is %d bytes", int64(math.MaxInt64))
	}
	return n * factor, nil
}

// Format writes a number of bytes exactly: with a unit if it is a whole number of
// that unit.
func Format(n int64) string {
	for _, u := range []string{"TiB", "GiB", "MiB", "KiB"} {
		if f := factors[strings.ToLower(u)]; n >= f && n%f == 0 {
			return fmt.Sprintf("%d %s", n/f, u)
		}
	}
	return Count(n, "byte")
}

// Count writes a number of things: "1 byte", "2 bytes".
func Count[N int | int64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return fmt.Sprintf("%d %s", n, noun)
}

// Duration is a length of time; as a flag it takes seconds, or a number with a unit.
// The help of a flag names no default if that is 0.
type Duration time.Duration

func (d *Duration) String() string {
	if *d == 0 {
		return ""
	}
	return time.Duration(*d).String()
}

func (d *Duration) Type() string { return "TIME" }

var errDuration = errors.New("want seconds, or a number with a unit: 5, 0.5, 500ms, 1m")

func (d *Duration) Set(text string) error {
	if seconds, err := strconv.ParseFloat(text, 64); err == nil {
		text = strconv.FormatFloat(seconds, 'f', 9, 64) + "s"
	}
	n, err := time.ParseDuration(text)
	if err != nil || n < 0 {
		return errDuration
	}
	*d = Duration(n)
	return nil
}

// About writes a number of bytes with one decimal.
func About(n int64) string {
	for _, u := range []string{"GiB", "MiB", "KiB"} {
		if f := factors[strings.ToLower(u)]; n >= f {
			return fmt.Sprintf("%.1f %s", float64(n)/float64(f), u)
		}
	}
	return Count(n, "byte")
}

// Time writes a number of nanoseconds with three digits.
func Time(ns float64) string {
	for _, u := range []struct {
		ns   float64
		name string
	}{{1e9, "s"}, {1e6, "ms"}, {1e3, "µs"}} {
		if ns >= u.ns {
			return fmt.Sprintf("%.3g %s", ns/u.ns, u.name)
		}
	}
	return fmt.Sprintf("%.3g ns", ns)
}
