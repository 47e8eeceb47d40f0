//go:build linux

package main

// changeGroup: the time from just before a change in one process until another process has read it. Two processes take
// turns, so each sleeps while the other works. Users of QSharedMemory can only poll, here every 200 ms.
func changeGroup(all []*peer, pl plan) *group {
	g := &group{ID: "change", Title: "A change made in one process, until another has read it", Columns: []column{
		{Key: "p50", Title: "p50", format: duration},
		{Key: "p99", Title: "p99", format: duration},
	}}
	run := func(op string, extra ...string) func(p *peer, key string) (map[string]float64, error) {
		return func(p *peer, key string) (map[string]float64, error) {
			args := append([]string{option("key", key)}, extra...)
			f, err := together(
				job{peer: p, op: op, args: append([]string{"create=1"}, args...)},
				job{peer: p, op: op, args: args})
			if err != nil {
				return nil, err
			}
			f[0].Hist.merge(f[1].Hist)
			return map[string]float64{"p50": f[0].Hist.quantile(0.5), "p99": f[0].Hist.quantile(0.99)}, nil
		}
	}
	withPeers(all, "ping", g, run("ping", option("n", pl.pings)))
	// Changes come at random moments; otherwise each would come at the same point of the poller's sleep.
	withPeers(all, "poll", g, run("poll", option("n", pl.polls), option("gap_us", 200000)))
	if r := g.row("futex"); r != nil {
		r.yardstick = true
	}
	return g
}
