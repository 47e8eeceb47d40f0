//go:build linux

package main

import (
	"context"
	"fmt"
	"math"
	"os"
)

// group is a table: a row for each peer that can do the operation, measured in interleaved rounds.
type group struct {
	ID      string   `json:"id"`
	Title   string   `json:"title"`
	Columns []column `json:"columns"`
	Rows    []*row   `json:"rows"`
	Notes   []string `json:"notes,omitempty"`

	// measure replaces the plain rounds if a row needs a set-up that outlives a round.
	measure func(ctx context.Context, g *group, reps int)
}

// column is a figure that each row has. The rows of a group are sorted by the first one.
type column struct {
	Key    string               `json:"key"`
	Title  string               `json:"title"`
	More   bool                 `json:"more_is_better,omitempty"`
	format func(float64) string // how a person reads it
}

// row has the figures of one peer: a value for each column and round.
type row struct {
	Peer   string               `json:"peer"`
	Name   string               `json:"name"`
	Values map[string][]float64 `json:"-"`
	Err    string               `json:"error,omitempty"`

	of        *peer
	yardstick bool // not a competitor: memcpy within one process, a bare futex
	run       func(key string) (map[string]float64, error)
}

func (g *group) add(p *peer, run func(key string) (map[string]float64, error)) *row {
	r := &row{Peer: p.id, Name: p.name, Values: map[string][]float64{}, of: p, run: run}
	g.Rows = append(g.Rows, r)
	return r
}

func (g *group) row(peer string) *row {
	for _, r := range g.Rows {
		if r.Peer == peer {
			return r
		}
	}
	return nil
}

// runAll measures the rounds: A B C, A B C, ..., so that a slow moment of the machine affects all alike.
func (g *group) runAll(ctx context.Context, reps int) {
	if g.measure != nil {
		g.measure(ctx, g, reps)
		return
	}
	for range reps {
		for _, r := range g.Rows {
			if ctx.Err() != nil {
				return
			}
			g.record(r, r.run)
		}
	}
}

func (g *group) record(r *row, run func(key string) (map[string]float64, error)) {
	v, err := run(newKey())
	if err != nil {
		r.Err = err.Error()
	}
	for _, c := range g.Columns {
		value, ok := v[c.Key]
		if !ok {
			value = math.NaN()
		}
		r.Values[c.Key] = append(r.Values[c.Key], value)
	}
}

var keys int

// newKey returns a key that no other experiment and no other run uses.
func newKey() string {
	keys++
	return fmt.Sprintf("%s%d", keyPrefix(), keys)
}

func keyPrefix() string { return fmt.Sprintf("qshm-peers-%d-", os.Getpid()) }

// withPeers adds a row for each peer that can do the operation.
func withPeers(all []*peer, op string, g *group, run func(p *peer, key string) (map[string]float64, error)) *group {
	for _, p := range all {
		if p.can(op) {
			g.add(p, func(key string) (map[string]float64, error) { return run(p, key) })
		}
	}
	return g
}

func option(name string, value any) string { return fmt.Sprintf("%s=%v", name, value) }
