package units

import (
	"testing"
	"time"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "1": 1, "4096": 4096, "64KiB": 65536, "64kib": 65536, "64 KiB": 65536, "1M": 1 << 20, "1MB": 1e6,
		"2g": 2 << 30, "7b": 7, "9223372036854775807": 1<<63 - 1,
	} {
		if got, err := Parse(text); err != nil || got != want {
			t.Errorf("Parse(%q) = %d, %v; want %d", text, got, err, want)
		}
	}
	for _, text := range []string{"", " ", "x", "-1", "1.5M", "64Q", "KiB", "0x10", "1e3", "9223372036854775808", "9223372036854775807K", "1 2"} {
		if got, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %d, want an error", text, got)
		}
	}
}

func TestFormatIsExactAndParses(t *testing.T) {
	for n, want := range map[int64]string{
		0: "0 bytes", 1: "1 byte", 1000: "1000 bytes", 1024: "1 KiB", 1025: "1025 bytes", 65536: "64 KiB", 1 << 20: "1 MiB", 3 << 30: "3 GiB",
	} {
		got := Format(n)
		if got != want {
			t.Errorf("Format(%d) = %q, want %q", n, got, want)
		}
	}
}

func TestDurationTakesSeconds(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"0": 0, "5": 5 * time.Second, "0.5": 500 * time.Millisecond, "5s": 5 * time.Second, "500ms": 500 * time.Millisecond, "1m": time.Minute, "1h30m": 90 * time.Minute,
	} {
		var d Duration
		if err := d.Set(text); err != nil || time.Duration(d) != want {
			t.Errorf("%q is %v, %v; want %v", text, time.Duration(d), err, want)
		}
	}
	for _, text := range []string{"", "x", "-1", "-1s", "5 s", "NaN", "inf", "1e300", "1d"} {
		var d Duration
		if err := d.Set(text); err == nil {
			t.Errorf("%q is %v, want an error", text, time.Duration(d))
		}
	}
}

func TestCount(t *testing.T) {
	for n, want := range map[int]string{0: "0 viewers", 1: "1 viewer", 2: "2 viewers"} {
		if got := Count(n, "viewer"); got != want {
			t.Errorf("Count(%d) = %q, want %q", n, got, want)
		}
	}
}
