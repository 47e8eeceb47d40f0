package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
	"qshm/shm/stream"
)

// Measuring on this machine what calls of the library take.

func newBench() *cobra.Command {
	var asJSON bool
	each := units.Duration(time.Second)
	cmd := plainCommand("bench", "Measure what calls of the library take", func(cmd *cobra.Command) error {
		each := time.Duration(each)
		if each < time.Millisecond || each > time.Minute {
			return usage(cmd, "--each %v: want 1ms to 1m", each)
		}
		results, err := runBench(cmd.Context(), each)
		if err != nil {
			return err
		}
		if asJSON {
			return printJSON(cmd.OutOrStdout(), results)
		}
		out := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', tabwriter.AlignRight)
		fmt.Fprintf(out, "%s/%s, %d processors\tMEDIAN\tP99\tCALLS/S\t\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
		for _, r := range results {
			fmt.Fprintf(out, "%-26s\t%s\t%s\t%.0f\t\n", r.What, units.Time(r.Median), units.Time(r.P99), r.Rate)
		}
		return out.Flush()
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Var(&each, "each", "measure each call for TIME: seconds, or 500ms, 1m")
	return withHelp(cmd)
}

// benchResult is one line of the table. help/bench.txt documents its JSON.
type benchResult struct {
	What   string  `json:"what"`
	Calls  int     `json:"calls"`
	Median float64 `json:"median_ns"`
	P99    float64 `json:"p99_ns"`
	Rate   float64 `json:"calls_per_second"`
}

func runBench(ctx context.Context, each time.Duration) (results []benchResult, err error) {
	const size = 64 << 10
	key, in := fmt.Sprintf("demo bench %d", os.Getpid()), storeOptions()
	seg, err := shm.Create(key, size, in...)
	if err != nil {
		return nil, err
	}
	defer seg.Close()
	second, err := startPeer(key)
	if err != nil {
		return nil, err
	}
	defer second.kill()
	s, err := stream.Open(key+" stream", size, in...)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	sub, err := s.Subscribe()
	if err != nil {
		return nil, err
	}
	page, message := make([]byte, 4096), make([]byte, 64)
	if err := second.tell("take turns"); err != nil {
		return nil, err
	}
	for _, c := range []struct {
		what  string
		batch int // how many calls are measured as one, if one is too short
		call  func() error
	}{
		{"lock and unlock", 1000, func() error {
			if err := seg.Lock(); err != nil {
				return err
			}
			return seg.Unlock()
		}},
		{"snapshot of 4 KiB", 100, func() error { _, _, err := seg.Snapshot(page); return err }},
		{"message of 64 bytes", 100, func() error {
			if err := s.Send(ctx, message); err != nil {
				return err
			}
			_, err := sub.Next(ctx)
			return err
		}},
		// A call waits for the answer to the call before.
		{"round trip", 1, func() error { return takeTurn(ctx, seg, 0) }},
		{"attach and detach", 1, func() error {
			other, err := shm.Attach(key, in...)
			if err != nil {
				return err
			}
			return other.Detach()
		}},
		{"create and destroy", 1, func() error {
			other, err := shm.Create(key+" short-lived", size, in...)
			if err != nil {
				return err
			}
			return other.Detach()
		}},
	} {
		r, err := measure(ctx, c.batch, each, c.call)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		r.What = c.what
		results = append(results, r)
	}
	return results, nil
}

// measure measures a call for a while.
func measure(ctx context.Context, batch int, each time.Duration, call func() error) (r benchResult, err error) {
	if err := call(); err != nil { // the first one may wait for the second process
		return r, err
	}
	var took []float64
	start := time.Now()
	now := start
	for now.Sub(start) < each && ctx.Err() == nil {
		for range batch {
			if err := call(); err != nil {
				return r, err
			}
		}
		next := time.Now()
		took = append(took, float64(next.Sub(now))/float64(batch))
		now = next
	}
	slices.Sort(took)
	r.Calls = len(took) * batch
	r.Median, r.P99 = took[len(took)/2], took[(len(took)-1)*99/100]
	r.Rate = float64(r.Calls) / now.Sub(start).Seconds()
	return r, ctx.Err()
}
