package layout

import (
	"strings"
	"testing"
)

func rows(text string, width int) []string {
	var all []string
	for _, r := range Rows(text, width) {
		all = append(all, text[r.Start:r.End])
	}
	return all
}

func TestRowsBreakBetweenCharacters(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"", 5, ""},
		{"\n", 5, "|"},
		{"hello", 5, "hello"},
		{"hello!", 5, "hello|!"},
		{"ab\ncd", 5, "ab|cd"},
		{"日本語", 4, "日本|語"},
		{"日本語", 5, "日本|語"},
		{"e\u0301e\u0301e\u0301", 2, "e\u0301e\u0301|e\u0301"},
		{"👨‍👩‍👧x", 2, "👨‍👩‍👧|x"},
		{"a\tb", 20, "a\tb"},
		{"one two", 5, "one |two"},
		{"one two", 3, "one |two"},
		{"one  two", 3, "one | |two"},
		{"a longword", 5, "a |longw|ord"},
		{" longword", 5, " |longw|ord"},
	} {
		if got := strings.Join(rows(c.text, c.width), "|"); got != c.want {
			t.Errorf("Rows(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}

func TestNextAndPreviousGoByCharacters(t *testing.T) {
	text := "a日e\u0301👨‍👩‍👧\nz"
	var forward []int
	for i := 0; i < len(text); i = Next(text, i) {
		forward = append(forward, i)
	}
	for k, i := len(forward)-1, len(text); i > 0; k-- {
		if i = Previous(text, i); i != forward[k] {
			t.Fatalf("going back leads to %d, going forth to %d", i, forward[k])
		}
	}
}

func TestFitKeepsWholeCharacters(t *testing.T) {
	for n, want := range []string{"", "a", "a", "a", "a日", "a日", "a日", "a日e\u0301"} {
		if got := Fit("a日e\u0301", n); got != want {
			t.Errorf("Fit to %d bytes is %q, want %q", n, got, want)
		}
	}
}

func TestFollowKeepsTheCursorAtItsPlace(t *testing.T) {
	for _, c := range []struct {
		before, after string
		at, want      int
	}{
		{"hello", "hello world", 2, 2},
		{"hello", "oh hello", 2, 5},
		{"hello", "hello", 5, 5},
		{"hello", "", 3, 0},
		{"abc", "aXc", 2, 2},
		{"", "日本", 0, 0},
	} {
		if got := Follow(c.before, c.after, c.at); got != c.want {
			t.Errorf("Follow(%q, %q, %d) = %d, want %d", c.before, c.after, c.at, got, c.want)
		}
	}
}

func FuzzNothingGetsLost(f *testing.F) {
	f.Add("a日\te\u0301\n👨‍👩‍👧\xff", 3)
	f.Fuzz(func(t *testing.T, text string, width int) {
		if strings.Join(rows(text, width%100), "") != strings.ReplaceAll(text, "\n", "") {
			t.Errorf("rows of %q lose something", text)
		}
	})
}

func TestShortenCountsColumns(t *testing.T) {
	for _, c := range []struct {
		text  string
		width int
		want  string
	}{
		{"hello", 5, "hello"},
		{"hello!", 5, "hell…"},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本…"},
		{"日本語", 4, "日…"},
	} {
		if got := Shorten(c.text, c.width); got != c.want {
			t.Errorf("Shorten(%q, %d) = %q, want %q", c.text, c.width, got, c.want)
		}
	}
}
