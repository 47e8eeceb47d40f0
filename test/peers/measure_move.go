//go:build linux

package main

import "fmt"

// moveGroup: payloads of a size go from one process to another, one after the other, from private memory of the sender
// to memory that the receiver can read. That takes one copy into shared memory; in the rows "and copied out" the
// receiver makes a private copy too, as with a pipe or a socket.
//
// The time of each payload is the mean. For large ones it is the median of laps through the slots, because they are
// compared with a copy within one process, which is the median of batches: a moment without a processor counts in
// neither. Small ones arrive in bursts, and a median would show the best case only.
func moveGroup(all []*peer, pl plan, size int) *group {
	// As many slots as fit into the buffer of a pipe, and at least two: one is filled while the other is read.
	slots := min(max(64*kib/size, 2), 64)
	g := &group{ID: "move-" + sizeName(size), Title: "Move " + sizeTitle(size) + " from one process to another", Columns: []column{
		{Key: "op", Title: "time each", format: duration},
		{Key: "mean", Title: "mean", format: duration},
		{Key: "speed", Title: "GB/s", More: true, format: plain},
	}}
	result := func(ns float64) map[string]float64 {
		return map[string]float64{"op": ns, "speed": float64(size) / ns}
	}
	args := []string{option("size", size), option("slots", slots), option("warm", slots), option("n", pl.payloads[size])}
	run := func(extra ...string) func(p *peer, key string) (map[string]float64, error) {
		return func(p *peer, key string) (map[string]float64, error) {
			args := append(append([]string{option("key", key)}, args...), extra...)
			f, err := together(
				job{peer: p, op: "move", args: append([]string{"create=1"}, args...)},
				job{peer: p, op: "move", args: args})
			if err != nil {
				return nil, err
			}
			mean := float64(f[1].End-f[0].Begin) / float64(f[1].N)
			v := result(mean)
			if slots == 2 {
				v = result(f[1].Op)
			}
			v["mean"] = mean
			return v, nil
		}
	}
	within := func(p *peer, _ string) (map[string]float64, error) {
		f, err := together(job{peer: p, op: "memcpy", args: append([]string{option("ms", pl.bench)}, args...)})
		if err != nil {
			return nil, err
		}
		return result(f[0].Op), nil
	}
	withPeers(all, "memcpy", g, within)
	for _, r := range g.Rows {
		r.yardstick = true
	}
	withPeers(all, "move", g, run())
	for _, p := range all {
		if p.id == "qshm" || p.id == "futex" {
			out := *p
			out.id, out.name = p.id+"-out", p.name+", and copied out"
			withPeers([]*peer{&out}, "move", g, run("copy=1"))
		}
	}
	for _, id := range []string{"futex", "futex-out"} {
		if r := g.row(id); r != nil {
			r.yardstick = true
		}
	}
	return g
}

func sizeTitle(n int) string { return sizeIn(n, " MiB", " KiB", " B") }

func sizeName(n int) string { return sizeIn(n, "M", "K", "") }

// sizeIn formats a size in the largest unit that it has one of.
func sizeIn(n int, m, k, one string) string {
	switch {
	case n >= mib:
		return fmt.Sprint(n/mib) + m
	case n >= kib:
		return fmt.Sprint(n/kib) + k
	}
	return fmt.Sprint(n) + one
}
