// Command figures writes the results of test/peers into README.md and
// docs/performance.md, between the marks that are there for it. A test fails if the
// texts do not agree with docs/figures/peers.txt.
//
//	make figures      measures, and runs this command
//	go run ./docs/figures
//
// peers.txt is the output of "go run ./test/peers", and peers.svg its chart. Without
// peers.txt, the command writes that there are no figures yet.
package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// texts are the texts, and what each has between its marks.
var texts = []struct {
	name  string
	write func(results string) string
}{
	{"README.md", summary},
	{"docs/performance.md", tables},
}

const (
	begin = "<!-- figures: begin -->\n"
	end   = "<!-- figures: end -->"
	none  = "There are no figures of this version yet: `make figures` measures them and writes them here.\n"
)

func main() {
	for _, text := range texts {
		if err := fill(".", text.name, text.write); err != nil {
			fmt.Fprintln(os.Stderr, "figures: run it in the root of the project:", err)
			os.Exit(1)
		}
	}
}

// fill writes the results into a text.
func fill(root, name string, write func(string) string) error {
	before, after, err := filled(root, name, write)
	if err != nil || before == after {
		return err
	}
	return os.WriteFile(filepath.Join(root, name), []byte(after), 0o644)
}

// filled returns a text as it is, and as it must be with the results.
func filled(root, name string, write func(string) string) (before, after string, err error) {
	text, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		return "", "", err
	}
	head, rest, ok := strings.Cut(string(text), begin)
	_, tail, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", "", fmt.Errorf("%s: the text has no place for figures, between %q and %q", name, begin, end)
	}
	results, err := os.ReadFile(filepath.Join(root, "docs/figures/peers.txt"))
	content := none
	switch {
	case err == nil:
		content = write(string(results))
	case !errors.Is(err, fs.ErrNotExist):
		return "", "", err
	}
	return string(text), head + begin + content + end + tail, nil
}

// tables returns the chart, and the whole output of test/peers.
func tables(results string) string {
	return "![Time per operation beside the peers](figures/peers.svg)\n\n```text\n" + strings.TrimRight(results, "\n") + "\n```\n"
}

// A table of test/peers.
type table struct {
	title string
	rows  []row
}

// A row has its first figure, and how that compares with this library's.
type row struct {
	best               bool
	name, value, ratio string
}

var columns = regexp.MustCompile(` {2,}`)

// parse finds the tables in the output of test/peers: a title, a line of column
// heads, and rows of columns that two spaces or more separate.
func parse(results string) (tables []table) {
	for _, block := range strings.Split(results, "\n\n") {
		lines := strings.Split(strings.TrimRight(block, "\n"), "\n")
		if len(lines) < 3 || !strings.Contains(lines[1], "[quartiles]") {
			continue
		}
		t := table{title: lines[0]}
		unit := columns.Split(strings.TrimSpace(lines[1]), -1)[0]
		if !strings.Contains(unit, "/") { // "turns/s" belongs to the figures; "time" does not
			unit = ""
		}
		for _, line := range lines[2:] {
			best := strings.HasPrefix(line, "*")
			cells := columns.Split(strings.Trim(line, "* "), -1)
			if len(cells) < 3 || !strings.HasPrefix(cells[2], "[") {
				continue // failed, or a note
			}
			r := row{best: best, name: cells[0], value: strings.TrimSpace(cells[1] + " " + unit)}
			if r.name != us {
				r.ratio = cells[len(cells)-1]
			}
			t.rows = append(t.rows, r)
		}
		tables = append(tables, t)
	}
	return tables
}

// us is the name of the row of this library.
const us = "qshm"

// shown has the beginnings of the titles of the tables that the README shows.
var shown = []string{
	"Lock and unlock, uncontended", "2 processes contending", "Attach and detach, in a process that does not have",
	"A change made in one process", "Messages of 64 B", "Move 1 MiB", "Snapshot of 64 B",
}

// summary returns the chart, and a line for each table shown: this library, and the best of
// the others.
func summary(results string) string {
	var b strings.Builder
	machine, _, _ := strings.Cut(results, "\n")
	fmt.Fprintf(&b, "![Time per operation beside the peers](docs/figures/peers.svg)\n\n%s:\n\n", machine)
	b.WriteString("| | qshm | the best of the others | that one, beside qshm |\n|---|---|---|---|\n")
	for _, prefix := range shown {
		for _, t := range parse(results) {
			if !strings.HasPrefix(t.title, prefix) {
				continue
			}
			var own, other row
			for _, r := range t.rows {
				switch {
				case r.name == us:
					own = r
				case strings.HasPrefix(r.name, us+","): // another way to use this library
				case other.name == "" && !yardstick(r):
					other = r
				}
			}
			fmt.Fprintf(&b, "| %s | %s | %s: %s | %s |\n", t.title, own.value, other.name, other.value, strings.Replace(other.ratio, "WINS, ", "", 1))
			break
		}
	}
	return b.String()
}

// yardstick reports whether a row is no competitor, but shows what the machine can do:
// test/peers prints its figure in percent of this library's.
func yardstick(r row) bool { return strings.HasSuffix(r.ratio, "of qshm's") }
