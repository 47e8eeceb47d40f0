// Command drawings draws docs/drawings/*.txt as SVG, each beside its text: lines and
// arrows are drawn, other characters are text. A test fails if a drawing is not the one
// of its text.
//
//	go run ./docs/drawings
package main

import (
	"bytes"
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

// heads has the corners of each arrow head, in parts of the cell.
var heads = map[rune][6]float64{
	'▶': {0.2, 0.3, 1, 0.5, 0.2, 0.7}, '◀': {0.8, 0.3, 0, 0.5, 0.8, 0.7},
	'▲': {0.1, 0.6, 0.5, 0, 0.9, 0.6}, '▼': {0.1, 0.4, 0.5, 1, 0.9, 0.4},
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
	for _, line := range lines {
		width = max(width, len([]rune(line)))
	}
	var b bytes.Buffer
	w, h := float64(width)*cellWidth+2*margin, float64(len(lines))*cellHeight+2*margin
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%.0f" height="%.0f" viewBox="0 0 %.0f %.0f" role="img">
<style>
text { font: 13px "DejaVu Sans Mono", Menlo, Consolas, monospace; fill: #24292f }
path { stroke: #57606a; fill: none } polygon { fill: #57606a }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } path { stroke: #9da7b3 } polygon { fill: #9da7b3 } }
</style>
`, w, h, w, h)
	for y, line := range lines {
		row := []rune(line)
		top := margin + float64(y)*cellHeight
		for x := 0; x < len(row); x++ {
			left := margin + float64(x)*cellWidth
			midX, midY := left+cellWidth/2, top+cellHeight/2
			switch corners, isHead := heads[row[x]]; {
			case strokes[row[x]] != "":
				for _, direction := range strokes[row[x]] {
					toX, toY := midX, midY
					switch direction {
					case 'l':
						toX = left
					case 'r':
						toX = left + cellWidth
					case 'u':
						toY = top
					case 'd':
						toY = top + cellHeight
					}
					fmt.Fprintf(&b, "<path d=\"M%g %gL%g %g\"/>\n", midX, midY, toX, toY)
				}
			case isHead:
				b.WriteString(`<polygon points="`)
				for i := 0; i < len(corners); i += 2 {
					fmt.Fprintf(&b, "%.1f,%.1f ", left+corners[i]*cellWidth, top+corners[i+1]*cellHeight)
				}
				b.WriteString("\"/>\n")
			case !unicode.IsSpace(row[x]):
				end := x // a run of text ends before a line, an arrow or two spaces
				for end < len(row) && strokes[row[end]] == "" && !strings.ContainsRune("▶◀▲▼", row[end]) &&
					(row[end] != ' ' || end+1 < len(row) && row[end+1] != ' ' && strokes[row[end+1]] == "") {
					end++
				}
				fmt.Fprintf(&b, "<text x=\"%g\" y=\"%g\" textLength=\"%g\">%s</text>\n",
					left, top+cellHeight-4.5, float64(end-x)*cellWidth, html.EscapeString(string(row[x:end])))
				x = end - 1
			}
		}
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}
