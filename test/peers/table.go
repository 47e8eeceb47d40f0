//go:build linux

package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

// us is the library that the others are compared with.
const us = "qshm"

// report has all results of a run.
type report struct {
	Machine string            `json:"machine"`
	Peers   map[string]string `json:"peers"` // name and version
	Skipped []string          `json:"skipped,omitempty"`
	Groups  []*group          `json:"groups"`
	Bars    []bar             `json:"bars"`
}

func (r *report) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "%s\n", r.Machine)
	for _, s := range r.Skipped {
		_, _ = fmt.Fprintf(w, "skipped: %s\n", s)
	}
	_, _ = fmt.Fprintf(w, "Medians of interleaved rounds, quartiles in brackets. * is the best of a table.\n")
	for _, g := range r.Groups {
		g.print(w)
	}
	printChanges(w, changes(r.Groups))
	printBars(w, r.Bars)
}

func (g *group) print(w io.Writer) {
	_, _ = fmt.Fprintf(w, "\n%s\n", g.Title)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	head := []string{"", ""}
	for i, c := range g.Columns {
		head = append(head, c.Title)
		if i == 0 {
			head = append(head, "[quartiles]")
		}
	}
	_, _ = fmt.Fprintln(t, strings.Join(append(head, "beside qshm"), "\t"))
	best := g.best()
	for _, r := range g.sorted() {
		mark := " "
		if r == best {
			mark = "*"
		}
		cells := []string{mark, r.Name}
		if r.empty(g) {
			_, _ = fmt.Fprintln(t, strings.Join(append(cells, "failed: "+r.Err), "\t"))
			continue
		}
		for i, c := range g.Columns {
			v := r.Values[c.Key]
			m := median(v)
			if c.Key == "max" {
				m = largest(v) // the longest wait is the longest of all rounds
			}
			cells = append(cells, c.format(m))
			if i == 0 {
				cells = append(cells, fmt.Sprintf("[%s .. %s]", c.format(quantile(v, 0.25)), c.format(quantile(v, 0.75))))
			}
		}
		cells = append(cells, g.beside(r))
		if r.Err != "" {
			cells = append(cells, r.Err)
		}
		_, _ = fmt.Fprintln(t, strings.Join(cells, "\t"))
	}
	_ = t.Flush()
	for _, n := range g.Notes {
		_, _ = fmt.Fprintf(w, "   %s\n", n)
	}
}

func (r *row) empty(g *group) bool {
	for _, c := range g.Columns {
		if len(valid(r.Values[c.Key])) > 0 {
			return false
		}
	}
	return true
}

// sorted has the best row first.
func (g *group) sorted() []*row {
	rows := slices.Clone(g.Rows)
	slices.SortStableFunc(rows, func(a, b *row) int { return cmp.Compare(g.rank(a), g.rank(b)) })
	return rows
}

// rank is smaller for the better; rows without a figure come last.
func (g *group) rank(r *row) float64 {
	m := median(r.Values[g.Columns[0].Key])
	switch {
	case math.IsNaN(m):
		return math.Inf(1)
	case g.Columns[0].More:
		return -m
	}
	return m
}

// best is the first competitor; nil if there is only one row.
func (g *group) best() *row {
	if len(g.Rows) < 2 {
		return nil
	}
	for _, r := range g.sorted() {
		if !r.yardstick {
			return r
		}
	}
	return nil
}

// beside compares the row's first figure with that of this library.
func (g *group) beside(r *row) string {
	our := g.row(us)
	if our == nil || r == our {
		return ""
	}
	c := g.Columns[0]
	ratio := median(ratios(r.Values[c.Key], our.Values[c.Key]))
	if c.More {
		ratio = 1 / ratio
	}
	switch {
	case math.IsNaN(ratio) || ratio == 0:
		return ""
	case r.yardstick:
		return fmt.Sprintf("%s of qshm's", percent(ratio))
	case ratio < 1:
		return fmt.Sprintf("WINS, %s x better", digits(1/ratio))
	}
	return fmt.Sprintf("%s x worse", digits(ratio))
}

// MarshalJSON gives the median and spread of each column and every round's value.
func (r *row) MarshalJSON() ([]byte, error) {
	type spread struct {
		Median, Q1, Q3, Min, Max float64
		Rounds                   []float64
	}
	type bare row
	values := map[string]spread{}
	for k, v := range r.Values {
		if v = valid(v); len(v) > 0 {
			values[k] = spread{median(v), quantile(v, 0.25), quantile(v, 0.75), smallest(v), largest(v), v}
		}
	}
	return json.Marshal(struct {
		*bare
		Values map[string]spread `json:"values"`
	}{(*bare)(r), values})
}
