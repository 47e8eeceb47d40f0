//go:build linux

package main

import "fmt"

// traffic is who sends what to whom.
type traffic struct {
	size, readers int
	group         bool // the readers are one group
	bound         bool // each process runs on a processor of its own
}

// messagesGroup: one process sends messages of a size as fast as it can, others read
// them. A reader of this library reads in place; a pipe, a socket and Boost's queue copy
// the message.
//
// A system may run both processes on one processor: then they take turns, and the time
// is the sum of theirs. Two processors are measured only if each process is bound to one.
//
// The time is the mean of all messages but the first ones. For messages of 1 MiB and more
// it is the median of laps, as in moveGroup.
func messagesGroup(all []*peer, pl plan, of traffic) *group {
	size, readers := of.size, of.readers
	ring := max(1<<20, 4*size)
	id, title := fmt.Sprintf("messages-%s", sizeName(size)), "Messages of "+sizeTitle(size)
	switch {
	case of.group:
		id, title = fmt.Sprintf("%s-group-%d", id, readers), fmt.Sprintf("%s, to a group of %d", title, readers)
	case readers > 1:
		id, title = fmt.Sprintf("%s-%d", id, readers), fmt.Sprintf("%s, to %d readers", title, readers)
	case of.bound:
		title += ", each process on a processor of its own"
	default:
		id, title = id+"-anywhere", title+", on any processors"
	}
	g := &group{ID: id, Title: title, Columns: []column{
		{Key: "op", Title: "time each", format: duration},
		{Key: "rate", Title: "per second", More: true, format: count},
		{Key: "send", Title: "the sender's CPU", format: duration},
		{Key: "allocs", Title: "allocations", format: digits},
	}}
	n := pl.messages[size]
	args := []string{option("size", size), option("ring", ring), option("slots", max(1, min(64, n/8))), option("warm", max(2, n/20)), option("n", n)}
	if of.group {
		args = append(args, option("group", "g"))
	}
	run := func(extra ...string) func(p *peer, key string) (map[string]float64, error) {
		return func(p *peer, key string) (map[string]float64, error) {
			args := append(append([]string{option("key", key)}, args...), extra...)
			jobs := []job{{peer: p, op: "messages", args: append([]string{"create=1"}, args...)}}
			for range readers {
				jobs = append(jobs, job{peer: p, op: "messages", args: args})
			}
			for i := range jobs {
				jobs[i].bound = of.bound
			}
			f, err := together(jobs...)
			if err != nil {
				return nil, err
			}
			var end int64
			for _, r := range f[1:] {
				end = max(end, r.End)
			}
			each := float64(end-f[0].Begin) / float64(n)
			if size >= mib && readers == 1 {
				each = f[1].Op
			}
			v := map[string]float64{"op": each, "rate": 1e9 / each}
			if f[0].CPU > 0 {
				v["send"], v["allocs"] = float64(f[0].CPU)/float64(n), f[0].Alloc
			}
			return v, nil
		}
	}
	if readers > 1 || of.group {
		for _, p := range all {
			if p.id == us {
				withPeers([]*peer{p}, "messages", g, run())
			}
		}
		return g
	}
	withPeers(all, "memcpy", g, func(p *peer, _ string) (map[string]float64, error) {
		f, err := together(job{peer: p, op: "memcpy", args: append([]string{option("ms", pl.bench)}, args...)})
		if err != nil {
			return nil, err
		}
		return map[string]float64{"op": f[0].Op, "rate": 1e9 / f[0].Op}, nil
	})
	withPeers(all, "messages", g, run())
	for _, p := range all {
		if p.id == us {
			place := *p
			place.id, place.name = p.id+"-place", p.name+", written in place"
			withPeers([]*peer{&place}, "messages", g, run("place=1"))
		}
	}
	for _, r := range g.Rows {
		r.yardstick = r.of.can("memcpy") || r.Peer == "spin"
	}
	return g
}

// handGroup: a message of a size goes from one process to another, and one comes back;
// each process sleeps while the other works. Only this library does not copy the message.
func handGroup(all []*peer, pl plan, size int) *group {
	g := &group{ID: "hand-" + sizeName(size), Title: "A message of " + sizeTitle(size) + ", until another process has it", Columns: []column{
		{Key: "p50", Title: "p50", format: duration},
		{Key: "p99", Title: "p99", format: duration},
	}}
	return withPeers(all, "hand", g, func(p *peer, key string) (map[string]float64, error) {
		args := []string{option("key", key), option("size", size), option("ring", max(1<<20, 4*size)), option("n", max(20, min(pl.pings, pl.messages[size])))}
		f, err := together(
			job{peer: p, op: "hand", args: append([]string{"create=1"}, args...)},
			job{peer: p, op: "hand", args: args})
		if err != nil {
			return nil, err
		}
		f[0].Hist.merge(f[1].Hist)
		return map[string]float64{"p50": f[0].Hist.quantile(0.5), "p99": f[0].Hist.quantile(0.99)}, nil
	})
}
