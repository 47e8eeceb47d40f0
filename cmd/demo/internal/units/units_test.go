package units

import "testing"

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
