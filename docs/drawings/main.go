// Command drawings draws each docs/drawings/*.txt as an SVG file beside it. Box-drawing
// characters and triangles become lines and arrow heads, other characters text. A test fails
// if a drawing is not that of its text.
//
//	go run ./docs/drawings
package main

import (
	"fmt"
	"html"
	"os"
	"path/filepath"
	"strings"
	"unicode"
)

// The size of a character cell.
const (
	cellWidth  = 8.0
	cellHeight = 17.0
	margin     = 12.0
)

// strokes has the directions in which each box-drawing character has a line.
var strokes = map[rune]string{
	'─': "lr", '│': "ud", '┌': "rd", '┐': "ld", '└': "ru", '┘': "lu",
	'├': "udr", '┤': "udl", '┬': "lrd", '┴': "lru", '┼': "lrud",
}

// ends has the points where the lines of a character end, in parts of the cell.
var ends = map[rune][2]float64{'l': {0, 0.5}, 'r': {1, 0.5}, 'u': {0.5, 0}, 'd': {0.5, 1}}

// heads has the shaft and the corners of each arrow head, in parts of the cell. The tip is
// in the next cell, close to the line there.
var heads = map[rune]struct{ shaft, corners []float64 }{
	'▶': {[]float64{0, 0.5, 0.7, 0.5}, []float64{0.5, 0.3, 1.4, 0.5, 0.5, 0.7}},
	'◀': {[]float64{1, 0.5, 0.3, 0.5}, []float64{0.5, 0.3, -0.4, 0.5, 0.5, 0.7}},
	'▲': {[]float64{0.5, 1, 0.5, 0}, []float64{0.1, 0, 0.5, -0.45, 0.9, 0}},
	'▼': {[]float64{0.5, 0, 0.5, 1}, []float64{0.1, 1, 0.5, 1.45, 0.9, 1}},
}

func main() {
	texts, err := filepath.Glob("docs/drawings/*.txt")
	for _, name := range texts {
		if err == nil {
			err = draw(name)
		}
	}
	if err != nil || len(texts) == 0 {
		fmt.Fprintln(os.Stderr, "drawings: run it in the root of the project;", len(texts), "texts,", err)
		os.Exit(1)
	}
}

func draw(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	return os.WriteFile(strings.TrimSuffix(name, ".txt")+".svg", svg(string(text)), 0o644)
}

func svg(text string) []byte {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	width := 0
	var strokesOut, headsOut, texts strings.Builder
	for y, line := range lines {
		row := []rune(line)
		width = max(width, len(row))
		top := margin + float64(y)*cellHeight
		for x := 0; x < len(row); x++ {
			left := margin + float64(x)*cellWidth
			at := func(cx, cy float64) string { return fmt.Sprintf("%g %g", left+cx*cellWidth, top+cy*cellHeight) }
			switch head, isHead := heads[row[x]]; {
			case strokes[row[x]] != "":
				for _, direction := range strokes[row[x]] {
					end := ends[direction]
					fmt.Fprintf(&strokesOut, "M%sL%s", at(0.5, 0.5), at(end[0], end[1]))
				}
			case isHead:
				fmt.Fprintf(&strokesOut, "M%sL%s", at(head.shaft[0], head.shaft[1]), at(head.shaft[2], head.shaft[3]))
				c := head.corners
				fmt.Fprintf(&headsOut, "M%sL%sL%sZ", at(c[0], c[1]), at(c[2], c[3]), at(c[4], c[5]))
			case !unicode.IsSpace(row[x]):
				end := x // a run of text ends before a line, an arrow or two spaces
				for end < len(row) && !drawn(row[end]) &&
					(row[end] != ' ' || end+1 < len(row) && row[end+1] != ' ' && !drawn(row[end+1])) {
					end++
				}
				fmt.Fprintf(&texts, "<text x=\"%g\" y=\"%g\" textLength=\"%g\">%s</text>\n",
					left, top+cellHeight-4.5, float64(end-x)*cellWidth, html.EscapeString(string(row[x:end])))
				x = end - 1
			}
		}
	}
	w, h := float64(width)*cellWidth+2*margin, float64(len(lines))*cellHeight+2*margin
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">
<style>
text { font: 13px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #24292f }
.lines { stroke: #57606a; stroke-linecap: square; fill: none } .heads { fill: #57606a }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .lines { stroke: #9da7b3 } .heads { fill: #9da7b3 } }
</style>
<path class="lines" d="%s"/>
<path class="heads" d="%s"/>
%s</svg>
`, w, h, w, h, &strokesOut, &headsOut, &texts)
}

// drawn reports whether a character is a line or an arrow head.
func drawn(c rune) bool { return strokes[c] != "" || heads[c].shaft != nil }
