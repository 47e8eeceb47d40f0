//go:build linux

package main

import (
	"os"
	"testing"
)

// The test program is a worker too, as the runner's own program is.
func TestMain(m *testing.M) {
	if os.Getenv(workerEnv) != "" {
		runWorker(os.Args[1:])
	}
	os.Exit(m.Run())
}

// TestWhatIsMissingIsNamed: without a compiler the peers in Go are measured all the same.
func TestWhatIsMissingIsNamed(t *testing.T) {
	t.Setenv("PATH", "")
	found, skipped, err := findPeers(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if len(found) != len(goPeers) {
		t.Errorf("found %d peers, want the %d in Go", len(found), len(goPeers))
	}
	if len(skipped) < len(programs) {
		t.Errorf("skipped %q, want all %d programs", skipped, len(programs))
	}
}

// TestEveryPeerAnswers runs each peer in Go once, for a moment.
func TestEveryPeerAnswers(t *testing.T) {
	t.Setenv("PATH", "")
	all, _, err := findPeers(t.TempDir(), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	pl := quickPlan()
	pl.bench, pl.contend2, pl.pings = 1, 5, 10
	pl.payloads = map[int]int{64: 10}
	pl.asked, pl.waiters, pl.waiting = []int{1, 3}, 2, 1
	for _, g := range []*group{
		lockGroup(all, pl), contendGroup(all, 2, pl.contend2), attachGroup(all, pl, true), createGroup(all, pl),
		changeGroup(all, pl), moveGroup(all, pl, 64), snapshotGroup(all, pl, 64), allocsGroup(all, pl),
		askedGroup(all, pl), waitingGroup(all, pl, "lock"), waitingGroup(all, pl, "change"),
	} {
		g.runAll(t.Context(), 1)
		for _, r := range g.Rows {
			if r.Err != "" {
				t.Errorf("%s, %s: %s", g.ID, r.Name, r.Err)
			}
		}
	}
}

// TestAnotherVersion measures the library beside itself, as it would beside another version.
func TestAnotherVersion(t *testing.T) {
	tmp, memory := t.TempDir(), t.TempDir()
	path := os.Getenv("PATH")
	t.Setenv("PATH", "") // without compilers for other languages
	all, _, err := findPeers(tmp, memory)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", path)
	if all, err = withBefore(all, "../..", tmp, memory); err != nil {
		t.Fatal(err)
	}
	pl := quickPlan()
	pl.bench = 1
	g := createGroup(all, pl)
	g.runAll(t.Context(), 1)
	if c := changes([]*group{g}); len(c) != 1 || !(c[0].ratio > 0) {
		t.Errorf("%+v: want one figure of each; rows say %q and %q", c, g.row(us).Err, g.row(earlier).Err)
	}
}
