//go:build linux

package main

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// waitingGroup: the processor time of many processes that wait for a lock that another process holds, or for a change
// that does not come.
func waitingGroup(all []*peer, pl plan, what string) *group {
	g := &group{
		ID: "waiting-" + what,
		Columns: []column{
			{Key: "cpu", Title: "of a core, later", format: percent},
			{Key: "first", Title: "in the first second", format: percent},
		},
	}
	op := "queue"
	switch what {
	case "lock":
		g.Title = fmt.Sprintf("%d processes wait for a lock that is held", pl.waiters)
	case "change":
		op, g.Title = "await", fmt.Sprintf("%d processes wait for a change that does not come", pl.waiters)
	}
	return withPeers(all, op, g, func(p *peer, key string) (map[string]float64, error) {
		var running []*process
		defer func() {
			for _, w := range running { // all of them first, because each may wait for the end of another
				_ = w.in.Close()
			}
			endAll(running)
		}()
		for i := range pl.waiters + 1 {
			w, err := keep(p, op, option("key", key), option("create", max(0, 1-i)))
			if err != nil {
				return nil, err
			}
			running = append(running, w)
		}
		// They begin when all are set up, because Qt does not attach while the lock is held.
		for i, w := range running {
			w.goAt(monotonic())
			if i == 0 && what == "lock" { // the one that holds the lock
				if _, err := w.read(); err != nil {
					return nil, err
				}
			}
		}
		v := map[string]float64{}
		before, at := cpuOf(running[1:]), time.Now()
		for _, part := range []struct {
			key string
			ms  int
		}{{"first", 1000}, {"until it has settled", pl.waiting}, {"cpu", pl.waiting}} {
			time.Sleep(time.Duration(part.ms) * time.Millisecond)
			after, now := cpuOf(running[1:]), time.Now()
			v[part.key] = float64(after-before) / float64(now.Sub(at))
			before, at = after, now
		}
		return v, nil
	})
}

// cpuOf is the processor time that the processes have used, in nanoseconds.
func cpuOf(all []*process) (ns int64) {
	for _, w := range all {
		var t unix.Timespec
		_ = unix.ClockGettime(int32(^w.cmd.Process.Pid<<3|2), &t) // the clock of a process, see clock_getcpuclockid(3)
		ns += t.Nano()
	}
	return ns
}
