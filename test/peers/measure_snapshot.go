//go:build linux

package main

import "fmt"

// snapshotGroup: a consistent copy, without another process. Other libraries copy with their lock held.
func snapshotGroup(all []*peer, pl plan, size int) *group {
	g := &group{ID: "snapshot-" + sizeName(size), Title: "Snapshot of " + sizeTitle(size), Columns: []column{{Key: "op", Title: "time", format: duration}}}
	return withPeers(all, "snapshot", g, func(p *peer, key string) (map[string]float64, error) {
		return benched(job{peer: p, op: "snapshot", args: []string{option("key", key), option("ms", pl.bench), option("size", size), "create=1"}})
	})
}

// besideGroup: a writer updates without a pause while readers take snapshots without a pause; right after, the same
// writer runs beside as many processes that only compute. More processes than processors slow each other down in any
// case; what readers cost is the difference.
func besideGroup(all []*peer, pl plan, size, readers int) *group {
	g := &group{
		ID:    fmt.Sprintf("beside-%s-%d", sizeName(size), readers),
		Title: fmt.Sprintf("Snapshots of %s by %d beside a writer", sizeTitle(size), readers),
		Columns: []column{
			{Key: "update", Title: "an update takes", format: duration},
			{Key: "busy", Title: "beside busy ones", format: duration},
			{Key: "slower", Title: "slower by", format: percent},
			{Key: "cpu", Title: "CPU slower by", format: percent},
			{Key: "snapshot", Title: "a snapshot takes", format: duration},
		},
	}
	var busy *peer
	for _, p := range all {
		if p.can("busy") {
			busy = p
		}
	}
	return withPeers(all, "snapshot", g, func(p *peer, key string) (map[string]float64, error) {
		args := func(key string) []string {
			return []string{option("key", key), option("ms", pl.beside), option("size", size)}
		}
		writer := func(key string) []job {
			return []job{{peer: p, op: "update", args: append(args(key), "create=1")}}
		}
		jobs, control := writer(key), writer(newKey())
		for range readers {
			jobs = append(jobs, job{peer: p, op: "snapshot", args: args(key)})
			if busy != nil {
				control = append(control, job{peer: busy, op: "busy", args: args(key)})
			}
		}
		f, err := together(jobs...)
		if err != nil {
			return nil, err
		}
		var ns, n float64
		for _, r := range f[1:] {
			ns, n = ns+float64(r.NS), n+float64(r.N)
		}
		v := map[string]float64{"update": each(f[0]), "snapshot": ns / n}
		if busy == nil {
			return v, nil // no C compiler, no control
		}
		c, err := together(control...)
		if err != nil {
			return nil, err
		}
		v["busy"] = each(c[0])
		v["slower"] = each(f[0])/each(c[0]) - 1
		v["cpu"] = float64(f[0].CPU)/float64(f[0].N)/(float64(c[0].CPU)/float64(c[0].N)) - 1
		return v, nil
	})
}

// each is the elapsed time per operation, including the time without a processor.
func each(f figures) float64 { return float64(f.NS) / float64(f.N) }
