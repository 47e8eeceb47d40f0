//go:build linux

package main

import (
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"
)

// bar is a figure that the library must reach.
type bar struct {
	What     string  `json:"what"`
	Measured float64 `json:"measured"`
	Reads    string  `json:"reads"`
	Met      bool    `json:"met"`
	Unknown  string  `json:"unknown,omitempty"` // why it was not measured
}

// results finds figures by group, peer and column.
type results []*group

func (rs results) of(id, peer, column string) []float64 {
	for _, g := range rs {
		if g.ID == id {
			if r := g.row(peer); r != nil {
				return r.Values[column]
			}
		}
	}
	return nil
}

// has reports whether there is such a peer.
func (rs results) has(peer string) bool {
	return slices.ContainsFunc(rs, func(g *group) bool { return g.row(peer) != nil })
}

// against is the median of the ratios of this library's figure to the peer's, round by round.
func (rs results) against(id, peer, column string) float64 {
	return median(ratios(rs.of(id, us, column), rs.of(id, peer, column)))
}

func atMost(what string, v, limit float64, read func(float64) string) bar {
	return bar{What: what, Measured: v, Reads: read(v), Met: v <= limit}.checked()
}

func atLeast(what string, v, limit float64, read func(float64) string) bar {
	return bar{What: what, Measured: v, Reads: read(v), Met: v >= limit}.checked()
}

func (b bar) checked() bar {
	if math.IsNaN(b.Measured) {
		b.Measured, b.Met, b.Reads, b.Unknown = 0, false, "-", "not measured in this run"
	}
	return b
}

func times(f float64) string { return digits(f) + " x" }

// judge compares a run with what the library promises.
func judge(rs results) []bar {
	two, eight := rs.of("contend-2", us, "rate"), rs.of("contend-8", us, "rate")
	bars := []bar{
		atMost("lock and unlock, uncontended: at most 30 ns", median(rs.of("lock", us, "op")), 30, duration),
		atMost("... at most 0.8 times glibc's robust mutex", rs.against("lock", "glibc", "op"), 0.8, times),
		atLeast("... at least 50 times faster than Qt's SysV lock", 1/rs.against("lock", "sysv", "op"), 50, times),
		atLeast("2 contending: throughput at least glibc's robust mutex's", rs.against("contend-2", "glibc", "rate"), 1, times),
		atLeast("... each at least 40 % of the turns", median(rs.of("contend-2", us, "share")), 0.4, percent),
		atMost("... longest wait under 50 ms", largest(rs.of("contend-2", us, "max")), 50e6, duration),
		atLeast("8 contending: at least half the throughput of two", median(ratios(eight, two)), 0.5, times),
		atLeast("... nobody under half of a fair share", median(rs.of("contend-8", us, "share"))*8, 0.5, times),
	}
	// Qt got faster, and a choice of backends, with 6.6.
	attach, create := 1.2, 0.8
	if rs.has("posix") {
		attach, create = 1.6, 1.1
	}
	bars = append(bars,
		atMost(fmt.Sprintf("attach and detach, nothing else in this process: at most %g times Qt's (SysV)", attach), rs.against("attach-not", "sysv", "op"), attach, times),
		atMost(fmt.Sprintf("create and destroy: at most %g times Qt's (SysV)", create), rs.against("create", "sysv", "op"), create, times))
	for _, qt := range []struct{ id, name string }{{"sysv", "Qt's (SysV)"}, {"posix", "Qt's (POSIX)"}} {
		if qt.id == "sysv" || rs.has(qt.id) {
			bars = append(bars, atMost("attach and detach, segment in this process: at most "+qt.name, rs.against("attach-have", qt.id, "op"), 1, times))
		}
	}
	bars = append(bars,
		atMost("attach with 200 processes attached: at most 1.3 times that with one", median(ratios(rs.of("attached", us, "200"), rs.of("attached", us, "1"))), 1.3, times),
		atMost("100 processes waiting for a lock that is held: at most 2 % of a core", median(rs.of("waiting-lock", us, "cpu")), 0.02, percent))
	bars = append(bars,
		atMost("change to seen: p50 within twice a bare futex", rs.against("change", "futex", "p50"), 2, times),
		atMost("snapshot of 64 B, unlocked: at most 30 ns", median(rs.of("snapshot-64", us, "op")), 30, duration),
		atMost("8 readers slow an update by less than a fifth beyond busy processes", median(rs.of("beside-64-8", us, "slower")), 0.2, percent))
	for _, size := range []string{"1M", "64M"} {
		// A Go program copies as Go does, whatever C can do.
		name := "move " + size + "iB: at least 90 % of memcpy within one process"
		bars = append(bars,
			atLeast(name+" (Go's copy)", rs.against("move-"+size, "gocopy", "speed"), 0.9, percent),
			atLeast(name+" (C)", rs.against("move-"+size, "memcpy", "speed"), 0.9, percent))
	}
	for _, c := range allocColumns {
		bars = append(bars, atMost("allocations: none on "+c.Title, largest(rs.of("allocs", us, c.Key)), 0, plain))
	}
	for _, c := range changes(rs) {
		if c.judged {
			bars = append(bars, atMost("than before, at most 1.1 times: "+c.title(), c.ratio, 1.1, times))
		}
	}
	return bars
}

func printBars(w io.Writer, bars []bar) {
	_, _ = fmt.Fprintf(w, "\nWhat it must reach\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, b := range bars {
		verdict := "MISSED"
		switch {
		case b.Unknown != "":
			verdict = b.Unknown
		case b.Met:
			verdict = "met"
		}
		_, _ = fmt.Fprintf(t, "  %s\t%s\t%s\n", b.What, b.Reads, verdict)
	}
	_ = t.Flush()
}
