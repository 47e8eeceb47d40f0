//go:build linux

package main

// attachGroup: attach and detach a segment that another process has, or this process too.
func attachGroup(all []*peer, pl plan, have bool) *group {
	g := &group{ID: "attach-not", Title: "Attach and detach, in a process that does not have the segment"}
	has := 0
	if have {
		g.ID, g.Title, has = "attach-have", "Attach and detach, in a process that has the segment already", 1
	}
	g.Columns = []column{{Key: "op", Title: "time", format: duration}}
	withPeers(all, "attach", g, func(p *peer, key string) (map[string]float64, error) {
		return benched(
			job{peer: p, op: "hold", args: []string{option("key", key)}, aux: true},
			job{peer: p, op: "attach", args: []string{option("key", key), option("ms", pl.bench), option("have", has)}})
	})
	return g.withFloor()
}

func createGroup(all []*peer, pl plan) *group {
	g := &group{ID: "create", Title: "Create and destroy, 4 KiB", Columns: []column{{Key: "op", Title: "time", format: duration}}}
	withPeers(all, "create", g, func(p *peer, key string) (map[string]float64, error) {
		return benched(job{peer: p, op: "create", args: []string{option("key", key), option("ms", pl.bench)}})
	})
	return g.withFloor()
}

// withFloor marks the row of the bare system calls, which is no competitor.
func (g *group) withFloor() *group {
	if r := g.row("files"); r != nil {
		r.yardstick = true
	}
	return g
}
