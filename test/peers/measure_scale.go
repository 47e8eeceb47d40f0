//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
)

// What attaching costs when much is there already: one column for each level. The processes that make a level stay
// until the last one is done, for all peers at once, so that the rounds of a level are interleaved as well.

// attachedGroup: 1, 10, ... processes have the segment.
func attachedGroup(all []*peer, pl plan) *group {
	g := &group{ID: "attached", Title: "Attach and detach, with so many processes attached", Columns: levels(pl.attached)}
	keys := map[string]string{}
	scale(g, all, pl, pl.attached, func(p *peer, level, before int) ([]*process, error) {
		var keepers []*process
		for i := before; i < level; i++ {
			create := 0
			if i == 0 {
				keys[p.id], create = newKey(), 1
			}
			k, err := keep(p, option("key", keys[p.id]), option("create", create))
			if err != nil {
				return keepers, err
			}
			keepers = append(keepers, k)
		}
		return keepers, nil
	}, func(p *peer) string { return keys[p.id] })
	return g
}

// keysGroup: 1, 1,000, ... segments exist.
func keysGroup(all []*peer, pl plan) *group {
	g := &group{ID: "keys", Title: "Attach and detach, with so many keys in existence", Columns: levels(pl.keys)}
	keys := map[string]string{}
	scale(g, all, pl, pl.keys, func(p *peer, level, before int) ([]*process, error) {
		// SysV segments are counted for the whole system: taking most of them would be at others' expense.
		if limit := sysvSegments(); (p.id == "sysv") && level > limit/2 {
			return nil, fmt.Errorf("kernel.shmmni allows %d in the whole system", limit)
		}
		keys[p.id] = newKey()
		k, err := keep(p, option("key", keys[p.id]), option("n", level-before))
		return []*process{k}, err
	}, func(p *peer) string { return keys[p.id] + "-0" })
	return g
}

func sysvSegments() int {
	b, _ := os.ReadFile("/proc/sys/kernel/shmmni")
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func keep(p *peer, args ...string) (*process, error) {
	k, err := start(p, "hold", args...)
	if err != nil {
		return nil, err
	}
	k.late.Stop() // it stays as long as it is needed
	if err := k.ready(); err != nil {
		k.end()
		return nil, err
	}
	return k, nil
}

func levels(n []int) []column {
	var c []column
	for _, l := range n {
		c = append(c, column{Key: strconv.Itoa(l), Title: count(float64(l)), format: duration})
	}
	return c
}

// scale lets the group raise each peer from level to level, and measures attaching at each.
func scale(g *group, all []*peer, pl plan, levels []int, raise func(p *peer, level, before int) ([]*process, error), key func(*peer) string) {
	var peers []*peer
	for _, p := range all {
		if p.can("attach") && p.id != "python" { // 200 interpreters tell nothing new
			peers = append(peers, p)
			g.add(p, nil)
		}
	}
	g.measure = func(ctx context.Context, g *group, _ int) {
		var keepers []*process
		defer func() { endAll(keepers) }()
		before := 0
		stopped := map[*peer]bool{}
		for _, level := range levels {
			for _, p := range peers {
				if stopped[p] || ctx.Err() != nil {
					continue
				}
				more, err := raise(p, level, before)
				keepers = append(keepers, more...)
				if err != nil {
					g.row(p.id).Err, stopped[p] = fmt.Sprintf("%d: %v", level, err), true
				}
			}
			before = level
			column := strconv.Itoa(level)
			for range pl.scaleReps {
				for _, p := range peers {
					if stopped[p] || ctx.Err() != nil {
						continue
					}
					v, err := benched(job{peer: p, op: "attach", args: []string{option("key", key(p)), option("ms", pl.bench)}})
					r := g.row(p.id)
					if err != nil {
						r.Err = err.Error()
						continue
					}
					r.Values[column] = append(r.Values[column], v["op"])
				}
			}
		}
	}
}
