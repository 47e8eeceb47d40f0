//go:build linux

package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"text/tabwriter"
)

// Comparing the library with another version of itself: --before.

// earlier is the other version's row in a table.
const earlier = "before"

// withBefore adds the library in the checkout dir as a peer: the same workers, built with that library. Its rounds come
// right after those of this library.
func withBefore(all []*peer, dir, tmp, memory string) ([]*peer, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	work, store := filepath.Join(tmp, earlier), filepath.Join(memory, earlier)
	if err := os.Mkdir(store, 0o700); err != nil {
		return nil, err
	}
	if err := os.CopyFS(work, sources); err != nil {
		return nil, err
	}
	i := slices.IndexFunc(all, func(p *peer) bool { return p.id == us })
	p := *all[i]
	if _, err := os.Stat(filepath.Join(dir, "shm", "stream")); err != nil {
		if err := os.Remove(filepath.Join(work, "worker_messages.go")); err != nil {
			return nil, err
		}
		p.ops = slices.DeleteFunc(slices.Clone(p.ops), func(op string) bool { return op == "messages" || op == "hand" })
	}
	for _, name := range []string{"go.mod", "go.sum"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(work, name), b, 0o600); err != nil {
			return nil, err
		}
	}
	for _, args := range [][]string{
		{"mod", "edit", "-module=before", "-require=qshm@v0.0.0", "-replace=qshm=" + dir},
		{"build", "-mod=mod", "-o", "worker", "."},
	} {
		c := exec.Command("go", args...)
		c.Dir = work
		if said, err := c.CombinedOutput(); err != nil {
			return nil, fmt.Errorf("the library in %s: go %s: %w: %s", dir, args[0], err, said)
		}
	}
	p.id, p.name, p.version = earlier, us+" before", dir
	p.command = []string{filepath.Join(work, "worker"), us}
	p.env = []string{workerEnv + "=1", "QSHM_DIR=" + store}
	return slices.Insert(all, i+1, &p), nil
}

// change is how a figure has changed. A ratio of more than 1 is worse, whether the figure is a time or a rate.
type change struct {
	g             *group
	c             column
	was, is       float64
	ratio, q1, q3 float64
	judged        bool
}

func changes(groups []*group) (all []change) {
	for _, g := range groups {
		now, then := g.row(us), g.row(earlier)
		if now == nil || then == nil {
			continue
		}
		for i, c := range g.Columns {
			is, was := now.Values[c.Key], then.Values[c.Key]
			r := ratios(is, was)
			if c.More {
				r = ratios(was, is)
			}
			all = append(all, change{g, c, median(was), median(is), median(r), quantile(r, 0.25), quantile(r, 0.75), i == 0 && g.ID != "allocs"})
		}
	}
	return all
}

func (c change) title() string { return c.g.Title + ", " + c.c.Title }

func printChanges(w io.Writer, all []change) {
	if len(all) == 0 {
		return
	}
	_, _ = fmt.Fprintf(w, "\nBefore and now: medians; ratio of now to before within a round, its quartiles in brackets; less than 1 is better\n")
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	_, _ = fmt.Fprintln(t, "\t\tbefore\tnow\tratio\t")
	var last *group
	for _, c := range all {
		title := ""
		if c.g != last {
			title, last = c.g.Title, c.g
		}
		_, _ = fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t[%s .. %s]\n", title, c.c.Title, c.c.format(c.was), c.c.format(c.is),
			plain(c.ratio), plain(c.q1), plain(c.q3))
	}
	_ = t.Flush()
}
