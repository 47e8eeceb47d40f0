//go:build linux

// Command peers measures this library beside what else programs use to share memory, locks and data, all in one run
// on one machine: Qt's QSharedMemory, Boost.Interprocess, glibc's robust mutex, a bare futex, Python's shared_memory,
// flock(2), gofrs/flock, SysV semaphores, pipes, Unix sockets and TCP. It leaves out what is not installed, and says so.
//
//	go run ./test/peers                       everything: about five minutes
//	go run ./test/peers --quick               under one minute, for a first look
//	go run ./test/peers --only lock,contend   the tables whose names begin so
//	go run ./test/peers --svg figures.svg     the chart as well
//	go run ./test/peers --json                for a program to read
//	go run ./test/peers --before DIR          another version of this library as well, from its checkout in DIR
//
// Every figure is the median of several rounds. Rounds are interleaved, peer after peer, so that a slow moment of the
// machine affects all of them alike; ratios are taken within a round. The measured processes are this program again
// (worker_*.go) and the small programs in src, which all take the same command line (src/peer.h).
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

type settings struct {
	json, quick bool
	svg, only   string
	before      string
	reps        int
}

func main() {
	if os.Getenv(workerEnv) != "" {
		runWorker(os.Args[1:])
	}
	var s settings
	flag.BoolVar(&s.json, "json", false, "print JSON instead of tables")
	flag.StringVar(&s.svg, "svg", "", "write the chart to `FILE`")
	flag.StringVar(&s.only, "only", "", "measure only the tables whose `NAMES` begin so (comma-separated)")
	flag.StringVar(&s.before, "before", "", "measure the library in the checkout `DIR` as well, and show what has changed")
	flag.IntVar(&s.reps, "reps", 0, "take `N` rounds of everything")
	flag.BoolVar(&s.quick, "quick", false, "under one minute, with shorter and fewer rounds")
	flag.Parse()
	if err := run(s); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(s settings) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	// Shared memory is in /dev/shm, where programs may not be executable.
	memory, err := os.MkdirTemp("/dev/shm", "qshm-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(memory) }()
	defer removeLeftOvers()
	tmp, err := os.MkdirTemp("", "qshm-peers-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(tmp) }()

	all, skipped, err := findPeers(tmp, memory)
	if err != nil {
		return err
	}
	if s.before != "" {
		if all, err = withBefore(all, s.before, tmp, memory); err != nil {
			return err
		}
	}
	pl := fullPlan()
	if s.quick {
		pl = quickPlan()
	}
	if s.reps > 0 {
		pl.reps, pl.longReps, pl.scaleReps = s.reps, s.reps, s.reps
	}
	groups := groupsOf(all, pl, s.only)
	for _, g := range groups {
		begin := time.Now()
		fmt.Fprintf(os.Stderr, "%-14s", g.ID)
		g.runAll(ctx, pl.rounds(g))
		fmt.Fprintf(os.Stderr, "%5.1f s\n", time.Since(begin).Seconds())
	}
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted")
	}
	r := &report{Machine: machine(), Peers: versions(all), Skipped: skipped, Groups: groups, Bars: judge(groups)}
	if s.only != "" { // leave out the bars of tables that were not asked for
		r.Bars = slices.DeleteFunc(r.Bars, func(b bar) bool { return b.Unknown != "" })
	}
	if s.svg != "" {
		if err := os.WriteFile(s.svg, chart(r), 0o644); err != nil {
			return err
		}
	}
	if s.json {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r.print(os.Stdout)
	return nil
}

var messageSizes = []int{64, 4 * kib, 64 * kib, mib, 8 * mib}

// groupsOf returns the tables in their order.
func groupsOf(all []*peer, pl plan, only string) []*group {
	groups := []*group{
		lockGroup(all, pl),
		contendGroup(all, 1, pl.contend1),
		contendGroup(all, 2, pl.contend2),
		contendGroup(all, 8, pl.contend8),
		attachGroup(all, pl, true),
		attachGroup(all, pl, false),
		createGroup(all, pl),
		changeGroup(all, pl),
	}
	for _, size := range []int{64, 4 * kib, mib, 64 * mib} {
		groups = append(groups, moveGroup(all, pl, size))
	}
	for _, size := range messageSizes {
		groups = append(groups, messagesGroup(all, pl, traffic{size: size, readers: 1, bound: true}))
	}
	groups = append(groups, messagesGroup(all, pl, traffic{size: 64, readers: 1}))
	for _, readers := range []int{2, 8} {
		groups = append(groups, messagesGroup(all, pl, traffic{size: 64, readers: readers}))
	}
	for _, members := range []int{1, 2, 8} {
		groups = append(groups, messagesGroup(all, pl, traffic{size: 64, readers: members, group: true}))
	}
	for _, size := range []int{64, 8 * mib} {
		groups = append(groups, handGroup(all, pl, size))
	}
	for _, size := range []int{64, mib} {
		groups = append(groups, snapshotGroup(all, pl, size))
		for _, readers := range []int{1, 2, 8} {
			groups = append(groups, besideGroup(all, pl, size, readers))
		}
	}
	groups = append(groups, attachedGroup(all, pl), askedGroup(all, pl), keysGroup(all, pl), waitingGroup(all, pl, "lock"), waitingGroup(all, pl, "change"), allocsGroup(all, pl))
	return slices.DeleteFunc(groups, func(g *group) bool {
		return len(g.Rows) == 0 || only != "" && !slices.ContainsFunc(strings.Split(only, ","), func(name string) bool {
			return strings.HasPrefix(g.ID, strings.TrimSpace(name))
		})
	})
}

// rounds returns how many rounds a table has: fewer if a round takes seconds.
func (pl plan) rounds(g *group) int {
	if strings.HasPrefix(g.ID, "waiting") { // an idle process is as idle each time
		return 1
	}
	for _, long := range []string{"contend", "beside", "change", "move-64M", "allocs"} {
		if strings.HasPrefix(g.ID, long) {
			return pl.longReps
		}
	}
	return pl.reps
}

func versions(all []*peer) map[string]string {
	v := map[string]string{}
	for _, p := range all {
		v[p.name] = p.version
	}
	return v
}

// removeLeftOvers removes what killed peers have left in /dev/shm.
func removeLeftOvers() {
	for _, pattern := range []string{"/dev/shm/%s*", "/dev/shm/sem.%s*"} {
		left, _ := filepath.Glob(fmt.Sprintf(pattern, keyPrefix()))
		for _, path := range left {
			_ = os.Remove(path)
		}
	}
}
