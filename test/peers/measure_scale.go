//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
)

// What attaching, and finding that a segment is in use, costs with many attachments or many keys: one column for each
// number of them.

// attachedGroup: 1, 10, ... processes have the segment.
func attachedGroup(all []*peer, pl plan) *group {
	g := &group{ID: "attached", Title: "Attach and detach, with so many processes attached", Columns: levels(pl.attached)}
	return crowded(g, all, pl, "attach", pl.attached, func(p *peer, key string, level int) (keepers []*process, err error) {
		for i := range level {
			k, err := keep(p, "hold", option("key", key), option("create", max(0, 1-i)))
			if err != nil {
				return keepers, err
			}
			keepers = append(keepers, k)
		}
		return keepers, nil
	})
}

// askedGroup: 1, 5,000, ... attachments are alive.
func askedGroup(all []*peer, pl plan) *group {
	g := &group{ID: "asked", Title: "Find out that somebody is attached, with so many attached (Create fails)", Columns: levels(pl.asked)}
	return crowded(g, all, pl, "asked", pl.asked, func(p *peer, key string, level int) ([]*process, error) {
		k, err := keep(p, "crowd", option("key", key), option("n", level))
		if err != nil {
			return nil, err
		}
		return []*process{k}, nil
	})
}

// crowded sets up a segment for each level and peer, and measures op on them in interleaved rounds.
func crowded(g *group, all []*peer, pl plan, op string, levels []int, setUp func(p *peer, key string, level int) ([]*process, error)) *group {
	withScalable(all, op, g)
	g.measure = func(ctx context.Context, g *group, _ int) {
		var keepers []*process
		defer func() { endAll(keepers) }()
		keys := map[string]map[string]string{} // by column and peer
		for _, c := range g.Columns {
			keys[c.Key] = map[string]string{}
		}
		for _, level := range levels {
			for _, r := range g.Rows {
				if ctx.Err() != nil {
					return
				}
				key := newKey()
				more, err := setUp(r.of, key, level)
				keepers = append(keepers, more...)
				if err != nil {
					r.Err = fmt.Sprintf("%d: %v", level, err)
					continue
				}
				keys[strconv.Itoa(level)][r.Peer] = key
			}
		}
		for range pl.scaleReps {
			for _, c := range g.Columns {
				g.round(ctx, pl, op, c.Key, keys[c.Key])
			}
		}
	}
	return g
}

// round measures op once for each peer that has a key, for one column.
func (g *group) round(ctx context.Context, pl plan, op, column string, keys map[string]string) {
	for _, r := range g.Rows {
		key, ok := keys[r.Peer]
		if !ok || ctx.Err() != nil {
			continue
		}
		v, err := benched(job{peer: r.of, op: op, args: []string{option("key", key), option("ms", pl.bench)}})
		if err != nil {
			r.Err, v = err.Error(), map[string]float64{"op": math.NaN()}
		}
		r.Values[column] = append(r.Values[column], v["op"])
	}
}

// keysGroup: 1, 1,000, ... segments exist. They stay until the last level is done, for all peers at once.
func keysGroup(all []*peer, pl plan) *group {
	g := &group{ID: "keys", Title: "Attach and detach, with so many keys in existence", Columns: levels(pl.keys)}
	withScalable(all, "attach", g)
	g.measure = func(ctx context.Context, g *group, _ int) {
		var keepers []*process
		defer func() { endAll(keepers) }()
		before := 0
		for _, level := range pl.keys {
			keys := map[string]string{}
			for _, r := range g.Rows {
				if r.Err != "" || ctx.Err() != nil {
					continue
				}
				// The whole system has a limited number of SysV segments: leave half of them to other programs.
				if limit := sysvSegments(); r.Peer == "sysv" && level > limit/2 {
					r.Err = fmt.Sprintf("%d: kernel.shmmni allows %d in the whole system", level, limit)
					continue
				}
				key := newKey()
				k, err := keep(r.of, "hold", option("key", key), option("n", level-before))
				if err != nil {
					r.Err = fmt.Sprintf("%d: %v", level, err)
					continue
				}
				keepers = append(keepers, k)
				keys[r.Peer] = key + "-0"
			}
			before = level
			for range pl.scaleReps {
				g.round(ctx, pl, "attach", strconv.Itoa(level), keys)
			}
		}
	}
	return g
}

func withScalable(all []*peer, op string, g *group) {
	withPeers(slices.DeleteFunc(slices.Clone(all), func(p *peer) bool {
		return p.id == "python" // it would need 200 interpreters
	}), op, g, nil)
	g.withFloor()
}

func sysvSegments() int {
	b, _ := os.ReadFile("/proc/sys/kernel/shmmni")
	n, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return n
}

func keep(p *peer, op string, args ...string) (*process, error) {
	k, err := start(p, op, args...)
	if err != nil {
		return nil, err
	}
	k.late.Stop() // it runs as long as it is needed
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
