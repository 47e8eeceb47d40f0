//go:build linux

package main

import "fmt"

// lockGroup: one process alone, lock and unlock.
func lockGroup(all []*peer, pl plan) *group {
	g := &group{ID: "lock", Title: "Lock and unlock, uncontended", Columns: []column{{Key: "op", Title: "time", format: duration}}}
	withPeers(all, "lock", g, func(p *peer, key string) (map[string]float64, error) {
		return benched(job{peer: p, op: "lock", args: []string{option("key", key), option("ms", pl.bench)}})
	})
	if r := g.row(floorPeer.variant); r != nil {
		r.yardstick = true
	}
	return g
}

// benched runs jobs, the last of which is timed.
func benched(jobs ...job) (map[string]float64, error) {
	f, err := together(jobs...)
	if err != nil {
		return nil, err
	}
	return map[string]float64{"op": f[len(f)-1].Op}, nil
}

// contendGroup: n processes that lock, count in one cache line, and unlock, without a pause. One process alone shows what
// the loop itself costs.
func contendGroup(all []*peer, n, ms int) *group {
	g := &group{
		ID:    fmt.Sprintf("contend-%d", n),
		Title: fmt.Sprintf("%d processes contending on a short section for %g s", n, float64(ms)/1000),
		Columns: []column{
			{Key: "rate", Title: "turns/s", More: true, format: count},
			{Key: "share", Title: "least share", More: true, format: percent},
			{Key: "p50", Title: "wait p50", format: duration},
			{Key: "p99", Title: "p99", format: duration},
			{Key: "p999", Title: "p99.9", format: duration},
			{Key: "max", Title: "longest", format: duration},
		},
		Notes: []string{"least share: of all turns, what the process got that got fewest"},
	}
	if n == 1 {
		g.Title, g.Notes = "The same loop as below, 1 process alone", nil
	}
	return withPeers(all, "contend", g, func(p *peer, key string) (map[string]float64, error) {
		var jobs []job
		for i := range n {
			create := 0
			if i == 0 {
				create = 1
			}
			jobs = append(jobs, job{peer: p, op: "contend", args: []string{option("key", key), option("ms", ms), option("create", create)}})
		}
		f, err := together(jobs...)
		if err != nil {
			return nil, err
		}
		return contention(f, ms)
	})
}

func contention(f []figures, ms int) (map[string]float64, error) {
	var all hist
	least, turns, counted := f[0].N, int64(0), uint64(0)
	for _, w := range f {
		all.merge(w.Hist)
		turns += w.N
		least = min(least, w.N)
		counted = max(counted, w.Total)
	}
	// If two processes hold the lock at once, counts are lost; the last process to read must find all of them.
	if counted != uint64(turns) {
		return nil, fmt.Errorf("the lock did not exclude: %d turns, %d counted", turns, counted)
	}
	return map[string]float64{
		"rate": float64(turns) / float64(ms) * 1000, "share": float64(least) / float64(turns),
		"p50": all.quantile(0.5), "p99": all.quantile(0.99), "p999": all.quantile(0.999), "max": float64(all.max),
	}, nil
}
