// Package layout breaks text into the rows of a screen, by whole characters: what a
// person sees as one character may be several runes, and two columns wide.
package layout

import (
	"iter"
	"strings"
	"unicode/utf8"

	"github.com/rivo/uniseg"
)

// TabWidth is the distance between tab stops.
const TabWidth = 8

// First measures the first character of text, which is not empty: how many bytes it
// has, and how many columns it takes at column x.
func First(text string, x int) (length, width int) {
	switch c := text[0]; {
	case c == '\t':
		return 1, TabWidth - x%TabWidth
	case c == '\n':
		return 1, 0
	case c < utf8.RuneSelf && (len(text) == 1 || text[1] < utf8.RuneSelf): // the common case, fast
		return 1, 1
	}
	cluster, _, width, _ := uniseg.FirstGraphemeClusterInString(text, -1)
	return len(cluster), max(width, 1)
}

// Row is a stretch of the text that one row of the screen shows. It does not
// include the end of a line.
type Row struct{ Start, End int }

// Rows breaks text into rows of at most width columns, after a blank if there is one.
// A blank that would begin a row stands at the end of the row before, beyond its
// width. There is at least one row.
func Rows(text string, width int) []Row {
	width = max(width, 2) // room for a wide character
	rows := []Row{}
	start, x, word := 0, 0, 0 // word: where the last word begins, if that is after start
	end := func(at, next int) {
		rows = append(rows, Row{start, at})
		start, x, word = next, 0, 0
	}
	for i := 0; i < len(text); {
		n, w := First(text[i:], x)
		blank := text[i] == ' ' || text[i] == '\t'
		switch {
		case text[i] == '\n':
			end(i, i+n)
		case x+w <= width:
			x += w
			if blank {
				word = i + n
			}
		case blank:
			end(i+n, i+n)
		case word > start:
			i = word
			end(i, i)
			continue
		default:
			end(i, i)
			x = w
		}
		i += n
	}
	return append(rows, Row{start, len(text)})
}

// A char is a character: where it begins and ends, and from which column to which.
type char struct{ start, end, x, next int }

// each yields the characters of text, of which the first is at column 0.
func each(text string) iter.Seq[char] {
	return func(yield func(char) bool) {
		for i, x := 0, 0; i < len(text); {
			n, w := First(text[i:], x)
			if !yield(char{i, i + n, x, x + w}) {
				return
			}
			i += n
			x += w
		}
	}
}

// Column returns the column of the character at offset, in its row.
func Column(text string, row Row, offset int) int {
	return Width(text[row.Start:min(max(offset, row.Start), row.End)])
}

// At returns the offset of the character at column x of a row, or the row's end.
func At(text string, row Row, x int) int {
	return row.Start + len(Cut(text[row.Start:row.End], x))
}

// RowOf returns the row that offset is in. Between two rows of one line it is the
// second.
func RowOf(rows []Row, offset int) int {
	for i := len(rows) - 1; i > 0; i-- {
		if rows[i].Start <= offset {
			return i
		}
	}
	return 0
}

// Next returns where the character after the one at offset begins.
func Next(text string, offset int) int {
	if offset >= len(text) {
		return len(text)
	}
	n, _ := First(text[offset:], 0)
	return offset + n
}

// Previous returns where the character before offset begins.
func Previous(text string, offset int) int {
	// Only from a place between two characters can the next ones be told: the
	// beginning of the line is one.
	i := strings.LastIndexByte(text[:max(offset-1, 0)], '\n') + 1
	for i < offset {
		next := Next(text, i)
		if next >= offset {
			return i
		}
		i = next
	}
	return i
}

// Fit returns the longest beginning of text that has at most n bytes, in whole
// characters.
func Fit(text string, n int) string {
	for c := range each(text) {
		if c.end > n {
			return text[:c.start]
		}
	}
	return text
}

// Cut returns the longest beginning of text that has at most width columns.
func Cut(text string, width int) string {
	for c := range each(text) {
		if c.next > width {
			return text[:c.start]
		}
	}
	return text
}

// Width returns how many columns text takes.
func Width(text string) (width int) {
	for c := range each(text) {
		width = c.next
	}
	return width
}

// Shorten returns text if it has at most width columns, else its beginning and an
// ellipsis.
func Shorten(text string, width int) string {
	if Width(text) <= width {
		return text
	}
	return Cut(text, width-1) + "…"
}

// Changed returns how much of two texts is the same, at their beginnings and at
// their ends.
func Changed(before, after string) (prefix, suffix int) {
	most := min(len(before), len(after))
	for prefix < most && before[prefix] == after[prefix] {
		prefix++
	}
	for suffix < most-prefix && before[len(before)-1-suffix] == after[len(after)-1-suffix] {
		suffix++
	}
	return prefix, suffix
}

// Follow returns where a cursor at offset of the text before a change is in the text
// after it.
func Follow(before, after string, offset int) int {
	prefix, suffix := Changed(before, after)
	switch {
	case offset <= prefix:
	case offset >= len(before)-suffix:
		offset += len(after) - len(before)
	default:
		offset = len(after) - suffix
	}
	// Not in the middle of a character.
	at := strings.LastIndexByte(after[:offset], '\n') + 1
	for at < offset {
		at = Next(after, at)
	}
	return at
}
