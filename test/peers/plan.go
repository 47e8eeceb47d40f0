//go:build linux

package main

// plan says how long each experiment takes, in milliseconds, and how many of each thing it uses.
type plan struct {
	reps      int // rounds of the cheap experiments
	longReps  int // rounds of those that take seconds
	bench     int
	contend1  int
	contend2  int
	contend8  int
	beside    int
	pings     int
	polls     int
	payloads  map[int]int // how many of a size are moved
	messages  map[int]int // how many of a size are sent
	attached  []int       // processes
	asked     []int       // attachments
	waiters   int
	waiting   int // until the waiting processes have become idle, and then for the measurement
	keys      []int
	scaleReps int
}

const (
	kib = 1 << 10
	mib = 1 << 20
)

func fullPlan() plan {
	return plan{
		reps: 7, longReps: 3, bench: 60, contend1: 200, contend2: 1000, contend8: 2000, beside: 250, pings: 3000, polls: 8,
		payloads: map[int]int{64: 30000, 4 * kib: 15000, mib: 300, 64 * mib: 6},
		messages: map[int]int{64: 500_000, 4 * kib: 50_000, 64 * kib: 10_000, mib: 600, 8 * mib: 100},
		attached: []int{1, 10, 200}, asked: []int{1, 200, 5000}, keys: []int{1, 1000, 10000}, scaleReps: 7,
		waiters: 100, waiting: 4000,
	}
}

// quickPlan measures the same in less time. Contention still lasts hundreds of milliseconds, because fairness does not
// show in less.
func quickPlan() plan {
	return plan{
		reps: 3, longReps: 1, bench: 20, contend1: 50, contend2: 400, contend8: 600, beside: 100, pings: 800, polls: 1,
		payloads: map[int]int{64: 8000, 4 * kib: 4000, mib: 60, 64 * mib: 3},
		messages: map[int]int{64: 100_000, 4 * kib: 10_000, 64 * kib: 2000, mib: 100, 8 * mib: 20},
		attached: []int{1, 100}, asked: []int{1, 1000}, keys: []int{1, 1000}, scaleReps: 2,
		waiters: 100, waiting: 500,
	}
}
