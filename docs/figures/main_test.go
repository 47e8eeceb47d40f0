package main

import (
	"errors"
	"html"
	"io/fs"
	"os"
	"strings"
	"testing"
)

// README.md and docs/performance.md have the figures of docs/figures/peers.txt, and
// the chart is of the same run.
func TestTextsHaveTheFiguresOfTheResults(t *testing.T) {
	for _, text := range texts {
		before, after, err := filled("../..", text.name, text.write)
		if err != nil {
			t.Fatal(err)
		}
		if before != after {
			t.Errorf("%s does not have the figures of docs/figures/peers.txt: go run ./docs/figures", text.name)
		}
	}
	results, err := os.ReadFile("peers.txt")
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("there are no results yet")
	}
	chart, err2 := os.ReadFile("peers.svg")
	if err != nil || err2 != nil {
		t.Fatal(err, err2)
	}
	machine, _, _ := strings.Cut(string(results), "\n")
	if !strings.Contains(string(chart), ">"+machine+"<") {
		t.Errorf("the chart does not name the machine of the results: %s", machine)
	}
	for _, table := range parse(string(results)) {
		if !strings.HasPrefix(table.title, "Lock and unlock") && !strings.HasPrefix(table.title, "Snapshot of 64 B") {
			continue
		}
		for _, r := range table.rows {
			if !strings.Contains(string(chart), ">"+html.EscapeString(r.name)+"<") || !strings.Contains(string(chart), ">"+r.value+"<") {
				t.Errorf("the chart does not have %s with %s, as the results do: it is of another run", r.name, r.value)
			}
		}
	}
}

func TestSummaryHasTheFiguresOfTheTables(t *testing.T) {
	const results = `a machine
skipped: a peer: why
Medians of interleaved rounds, quartiles in brackets. * is the best of a table.

Lock and unlock, uncontended
                        time  [quartiles]     beside qshm
   a yardstick          1 ns  [1 ns .. 1 ns]  50.0 % of qshm's
*  a peer              2 ns  [2 ns .. 3 ns]  WINS, 1.50 x better
   qshm                 3 ns  [3 ns .. 3 ns]  
   another peer         failed: why

Snapshot of 64 B
                        time  [quartiles]     beside qshm
*  qshm                 4 ns  [4 ns .. 4 ns]  
   qshm, copied out     5 ns  [5 ns .. 5 ns]  1.25 x worse
   a peer               8 ns  [8 ns .. 8 ns]  2 x worse

2 processes contending
                        turns/s  [quartiles]      beside qshm
*  a peer              3 M      [3 M .. 3 M]     WINS, 2 x better
   qshm                1.5 M    [1.5 M .. 1.5 M]  

What it must reach
  something  1  met
`
	want := `![Time per operation beside the peers](docs/figures/peers.svg)

a machine:

| | qshm | the best of the others | that one, beside qshm |
|---|---|---|---|
| Lock and unlock, uncontended | 3 ns | a peer: 2 ns | 1.50 x better |
| 2 processes contending | 1.5 M turns/s | a peer: 3 M turns/s | 2 x better |
| Snapshot of 64 B | 4 ns | a peer: 8 ns | 2 x worse |
`
	if got := summary(results); got != want {
		t.Errorf("the summary is\n%s\nwant\n%s", got, want)
	}
}
