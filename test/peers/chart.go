//go:build linux

package main

import (
	"bytes"
	"fmt"
	"html"
	"maps"
	"math"
	"slices"
	"strings"
)

// The chart: one horizontal bar for each peer and operation, all on one logarithmic axis of time, so that operations can
// be compared too. It consists of rectangles, text and a style sheet for light and dark backgrounds.

// charted are the tables that the chart shows.
var charted = []struct{ id, title string }{
	{"lock", "lock and unlock, uncontended"},
	{"contend-2", "a turn, 2 processes contending"},
	{"contend-8", "a turn, 8 processes contending"},
	{"snapshot-64", "consistent copy of 64 B"},
	{"change", "a change, until another process has read it (p50)"},
	{"move-64", "64 B from one process to another"},
	{"move-1M", "1 MiB from one process to another"},
	{"attach-not", "attach and detach"},
	{"create", "create and destroy"},
}

const (
	chartWidth = 860
	labelWidth = 250
	valueWidth = 80
	barHeight  = 13
	barStep    = 18
	titleStep  = 40
	chartTop   = 64
)

type chartBar struct {
	name, class string
	ns          float64
}

func chart(r *report) []byte {
	type section struct {
		title string
		bars  []chartBar
	}
	var sections []section
	low, high := math.Inf(1), math.Inf(-1)
	height := float64(chartTop)
	for _, c := range charted {
		for _, g := range r.Groups {
			if g.ID != c.id {
				continue
			}
			bars := g.bars()
			if len(bars) == 0 {
				continue
			}
			sections = append(sections, section{c.title, bars})
			height += titleStep + float64(len(bars))*barStep
			for _, b := range bars {
				low, high = min(low, b.ns), max(high, b.ns)
			}
		}
	}
	if len(sections) == 0 {
		low, high = 1, 10
	}
	// From the power of ten below: a bar must have a length, and a log axis has no zero.
	from, to := math.Floor(math.Log10(low*0.9)), math.Ceil(math.Log10(high))
	x := func(ns float64) float64 {
		return labelWidth + (math.Log10(ns)-from)/(to-from)*(chartWidth-labelWidth-valueWidth)
	}

	var b bytes.Buffer
	versions := strings.Join(chartVersions(r), ", ")
	lines := wrap(versions, 120)
	bottom := height + 30
	_, _ = fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%.0f" viewBox="0 0 %d %.0f" role="img" aria-label="Time per operation of qshm and of its peers">
<style>
text { font: 12px "DejaVu Sans", Verdana, sans-serif; fill: #57606a }
.title { font-size: 17px; font-weight: bold; fill: #24292f }
.section { font-size: 13px; font-weight: bold; fill: #24292f }
.name { text-anchor: end }
.small { font-size: 10.5px }
.ours-text { font-weight: bold; fill: #0969da }
.ours { fill: #0969da } .peer { fill: #9aa4af } .yardstick { fill: none; stroke: #9aa4af; stroke-dasharray: 3 2 }
line { stroke: #8c959f; stroke-opacity: .35 }
@media (prefers-color-scheme: dark) {
text { fill: #9da7b3 } .title, .section { fill: #e6edf3 }
.ours-text { fill: #58a6ff } .ours { fill: #58a6ff } .peer { fill: #6e7681 } .yardstick { stroke: #8b949e }
}
</style>
<text class="title" x="12" y="26">Time per operation, logarithmic: shorter is better, dashed is no competitor</text>
`, chartWidth, bottom+float64(len(lines)+1)*14, chartWidth, bottom+float64(len(lines)+1)*14)
	for e := from; e <= to; e++ {
		at := x(math.Pow(10, e))
		_, _ = fmt.Fprintf(&b, `<line x1="%.1f" x2="%.1f" y1="%d" y2="%.0f"/><text class="small" text-anchor="middle" x="%.1f" y="%d">%s</text>`+"\n",
			at, at, chartTop-8, height, at, chartTop-14, duration(math.Pow(10, e)))
	}
	y := float64(chartTop)
	for _, s := range sections {
		_, _ = fmt.Fprintf(&b, `<text class="section" x="12" y="%.0f">%s</text>`+"\n", y+22, html.EscapeString(s.title))
		y += titleStep - 10
		for _, bar := range s.bars {
			text := bar.class + "-text"
			_, _ = fmt.Fprintf(&b, `<text class="name %s" x="%d" y="%.1f">%s</text><rect class="%s" x="%d" y="%.1f" width="%.1f" height="%d" rx="2"/><text class="%s" x="%.1f" y="%.1f">%s</text>`+"\n",
				text, labelWidth-8, y+barHeight-2.5, html.EscapeString(bar.name),
				bar.class, labelWidth, y, max(x(bar.ns)-labelWidth, 1), barHeight,
				text, x(bar.ns)+6, y+barHeight-2.5, duration(bar.ns))
			y += barStep
		}
		y += 10
	}
	for i, l := range append([]string{r.Machine}, lines...) {
		_, _ = fmt.Fprintf(&b, `<text class="small" x="12" y="%.0f">%s</text>`+"\n", bottom+float64(i)*14, html.EscapeString(l))
	}
	b.WriteString("</svg>\n")
	return b.Bytes()
}

// bars of a table, best first, as times.
func (g *group) bars() []chartBar {
	var bars []chartBar
	for _, r := range g.sorted() {
		v := median(r.Values[g.Columns[0].Key])
		if math.IsNaN(v) {
			continue
		}
		if g.Columns[0].More {
			v = 1e9 / v
		}
		class := "peer"
		switch {
		case r.yardstick:
			class = "yardstick"
		case r.Peer == us || r.Peer == us+"-out":
			class = "ours"
		}
		bars = append(bars, chartBar{r.Name, class, v})
	}
	return bars
}

func chartVersions(r *report) []string {
	var v []string
	for _, name := range slices.Sorted(maps.Keys(r.Peers)) {
		version := r.Peers[name]
		if version == "" {
			continue
		}
		if strings.HasPrefix(version, "v") {
			version = name + " " + version
		}
		if !slices.Contains(v, version) {
			v = append(v, version)
		}
	}
	return v
}

// wrap breaks a list at its commas.
func wrap(s string, width int) []string {
	var lines []string
	for len(s) > width {
		at := strings.LastIndex(s[:width], ", ")
		if at < 0 {
			break
		}
		lines, s = append(lines, s[:at+1]), s[at+2:]
	}
	return append(lines, s)
}
