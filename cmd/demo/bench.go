package main

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// Measuring on this machine what the library costs, beside the alternatives: a lock of
// the kernel, a pipe, a Unix socket.

const benchHelp = `Measure what shared memory costs on this machine, in about ten seconds, beside a
file lock (flock), a pipe and a Unix socket.

  lock and unlock    without another process that wants the lock
  round trip         8 bytes to a second process that sleeps, and back
  hand over 64 KiB   to a second process that reads them and answers
  snapshot of 4 KiB  a consistent copy, without the lock
  attach and detach  by a process that is attached already
  create and destroy 64 KiB, with the memory allocated

Half of all calls take the median or less, 99 of 100 take p99 or less. Very
short calls are measured many at a time. The machine should be idle.

--json prints an array of objects: what and by (as in the table), calls, and
median_ns, p99_ns, calls_per_second.`

const benchExamples = `  demo bench
  demo bench --each 3 --json > figures.json`

func newBench() *cobra.Command {
	var (
		asJSON bool
		each   = units.Duration(900 * time.Millisecond)
	)
	cmd := &cobra.Command{
		Use:               "bench",
		Short:             "Measure this machine, beside flock, a pipe and a socket",
		Long:              benchHelp,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			each := time.Duration(each)
			if each < time.Millisecond || each > time.Hour {
				return usageError{fmt.Errorf("--each %v: want 1ms to 1h", each), cmd.CommandPath()}
			}
			results, err := runBench(cmd, each)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), results)
			}
			return printBench(cmd.OutOrStdout(), results)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().Var(&each, "each", "measure each figure for TIME: seconds, or 500ms, 1m")
	return withHelp(cmd, benchExamples, exitPermission, exitNoSpace)
}

// benchResult is one line of the table. benchHelp documents its JSON.
type benchResult struct {
	What   string  `json:"what"`
	By     string  `json:"by"`
	Calls  int     `json:"calls"`
	Median float64 `json:"median_ns"`
	P99    float64 `json:"p99_ns"`
	Rate   float64 `json:"calls_per_second"`
}

// benchCase is one figure. prepare returns the call to measure, and a function that
// cleans up.
type benchCase struct {
	what, by string
	batch    int // how many calls are measured as one, if one is too short
	prepare  func(b *bench) (call func() error, end func(), err error)
}

const (
	benchKey  = "demo bench"
	benchSize = 64 << 10
)

var benchCases = []benchCase{
	{"lock and unlock", "segment", 1000, func(b *bench) (func() error, func(), error) {
		return func() error {
			if err := b.seg.Lock(); err != nil {
				return err
			}
			return b.seg.Unlock()
		}, nil, nil
	}},
	{"lock and unlock", "flock", 10, prepareFlock},
	{"round trip, 8 bytes", "segment", 1, func(b *bench) (func() error, func(), error) { return b.bySegment(8) }},
	{"round trip, 8 bytes", "pipe", 1, func(b *bench) (func() error, func(), error) { return b.byPipe(8) }},
	{"round trip, 8 bytes", "socket", 1, func(b *bench) (func() error, func(), error) { return b.bySocket(8) }},
	{"hand over 64 KiB", "segment", 1, func(b *bench) (func() error, func(), error) { return b.bySegment(benchSize) }},
	{"hand over 64 KiB", "pipe", 1, func(b *bench) (func() error, func(), error) { return b.byPipe(benchSize) }},
	{"hand over 64 KiB", "socket", 1, func(b *bench) (func() error, func(), error) { return b.bySocket(benchSize) }},
	{"snapshot of 4 KiB", "segment", 100, func(b *bench) (func() error, func(), error) {
		buf := make([]byte, 4096)
		return func() error { _, _, err := b.seg.Snapshot(buf); return err }, nil, nil
	}},
	{"attach and detach", "segment", 1, func(b *bench) (func() error, func(), error) {
		return func() error {
			seg, err := shm.Attach(benchKey, b.in)
			if err != nil {
				return err
			}
			return seg.Detach()
		}, nil, nil
	}},
	{"create and destroy", "segment", 1, func(b *bench) (func() error, func(), error) {
		return func() error {
			seg, err := shm.Create(benchKey+" short-lived", benchSize, b.in)
			if err != nil {
				return err
			}
			return seg.Detach()
		}, nil, nil
	}},
}

// bench is the state that the cases share.
type bench struct {
	ctx context.Context
	dir string
	in  shm.Option
	seg *shm.Segment
}

func runBench(cmd *cobra.Command, each time.Duration) ([]benchResult, error) {
	// On the file system of the usual store, so that the memory is of the same kind.
	b := &bench{ctx: cmd.Context()}
	dir, err := benchStore()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	b.dir, b.in = dir, shm.Dir(dir)
	if b.seg, err = shm.Create(benchKey, benchSize+8, b.in); err != nil {
		return nil, err
	}
	defer b.seg.Close()
	progress := newProgress(cmd.ErrOrStderr(), len(benchCases))
	defer progress.end()
	var results []benchResult
	for _, c := range benchCases {
		progress.step(c.what + ", " + c.by)
		r, err := b.measure(c, each)
		if err != nil {
			return nil, fmt.Errorf("%s, %s: %w", c.what, c.by, err)
		}
		if r.Calls > 0 { // some systems lack flock or Unix sockets
			results = append(results, r)
		}
	}
	return results, nil
}

// benchStore makes a store for the benchmark: in the one that --store or the
// environment names, else beside the user's own.
func benchStore() (string, error) {
	parent := store
	if parent == "" {
		parent = os.Getenv("QSHM_DIR")
	}
	if parent != "" {
		if err := os.MkdirAll(parent, 0o700); err != nil {
			return "", err
		}
		return os.MkdirTemp(parent, "bench-")
	}
	if dir, err := os.MkdirTemp("/dev/shm", "qshm-bench-"); err == nil {
		return dir, nil
	}
	return os.MkdirTemp("", "qshm-bench-")
}

// measure measures one case for a while.
func (b *bench) measure(c benchCase, each time.Duration) (benchResult, error) {
	r := benchResult{What: c.what, By: c.by}
	call, end, err := c.prepare(b)
	if end != nil {
		defer end()
	}
	if err != nil || call == nil {
		return r, err
	}
	var times durations
	start := time.Now()
	for now := start; now.Sub(start) < each; {
		for range c.batch {
			if err := call(); err != nil {
				return r, err
			}
		}
		next := time.Now()
		times.add(next.Sub(now))
		now = next
		if b.ctx.Err() != nil {
			return r, b.ctx.Err()
		}
	}
	total := time.Since(start)
	r.Calls = times.n * c.batch
	r.Rate = float64(r.Calls) / total.Seconds()
	r.Median = times.quantile(0.5) / float64(c.batch)
	r.P99 = times.quantile(0.99) / float64(c.batch)
	return r, nil
}

// durations counts times in classes that are 2% apart, so that it needs the same
// memory for any number of them.
type durations struct {
	n       int
	classes [2048]int
}

const classWidth = 1.02

func (d *durations) add(t time.Duration) {
	d.n++
	d.classes[classOf(t)]++
}

func (d *durations) quantile(q float64) float64 {
	left := int(float64(d.n) * q)
	for class, n := range d.classes {
		if left -= n; left < 0 {
			return classTime(class)
		}
	}
	return 0
}

func classOf(t time.Duration) int {
	return min(max(int(math.Log(max(float64(t), 1))/math.Log(classWidth)), 0), len(durations{}.classes)-1)
}

func classTime(class int) float64 { return math.Pow(classWidth, float64(class)+0.5) }

// withPeer makes the second process, which answers in one of the three ways and ends
// with its input. connect starts it and returns the call to measure.
func (b *bench) withPeer(way string, size int, connect func(peer *exec.Cmd, in io.Writer) (func() error, error)) (call func() error, end func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	peer := exec.Command(self, "bench-peer", way, strconv.Itoa(size), "--store", b.dir)
	peer.Stderr = os.Stderr
	in, err := peer.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	call, err = connect(peer, in)
	end = func() {
		in.Close()
		if peer.Process != nil {
			peer.Wait()
		}
	}
	for range 2 { // so that the process has started: see bySegment
		if err == nil && call != nil {
			err = call()
		}
	}
	return call, end, err
}

// turn returns the number of the turn, which is at the end of the segment: even turns
// are the first process's, odd ones the second's.
func turn(data []byte) uint64 { return binary.NativeEndian.Uint64(data[benchSize:]) }

// takeTurn waits until the number of the turn has a parity, calls fn, and passes the
// turn on.
func takeTurn(ctx context.Context, seg *shm.Segment, parity uint64, fn func(data []byte)) error {
	ready := func(data []byte) bool { return turn(data)%2 == parity }
	return seg.UpdateWhen(ctx, ready, func(data []byte) error {
		fn(data)
		binary.NativeEndian.PutUint64(data[benchSize:], turn(data)+1)
		return nil
	})
}

// bySegment hands over through shared memory. A call waits for the answer to the call
// before.
func (b *bench) bySegment(size int) (func() error, func(), error) {
	message := make([]byte, size)
	return b.withPeer("segment", size, func(peer *exec.Cmd, _ io.Writer) (func() error, error) {
		return func() error {
			return takeTurn(b.ctx, b.seg, 0, func(data []byte) { copy(data, message) })
		}, peer.Start()
	})
}

func (b *bench) byPipe(size int) (func() error, func(), error) {
	return b.withPeer("pipe", size, func(peer *exec.Cmd, in io.Writer) (func() error, error) {
		out, err := peer.StdoutPipe()
		if err != nil {
			return nil, err
		}
		return exchange(in, out, size), peer.Start()
	})
}

func (b *bench) bySocket(size int) (func() error, func(), error) {
	return b.withPeer("socket", size, func(peer *exec.Cmd, _ io.Writer) (func() error, error) {
		listener, err := net.Listen("unix", socketPath(b.dir))
		if err != nil {
			return nil, nil // this system has none
		}
		defer listener.Close()
		if err := peer.Start(); err != nil {
			return nil, err
		}
		conn, err := listener.Accept()
		if err != nil {
			return nil, err
		}
		return exchange(conn, conn, size), nil
	})
}

func socketPath(dir string) string { return filepath.Join(dir, "socket") }

// exchange sends a message and waits for the answer: the message if it is short,
// one byte if it is long.
func exchange(out io.Writer, in io.Reader, size int) func() error {
	message, answer := make([]byte, size), make([]byte, answerSize(size))
	return func() error {
		if _, err := out.Write(message); err != nil {
			return err
		}
		_, err := io.ReadFull(in, answer)
		return err
	}
}

func answerSize(size int) int {
	if size > 8 {
		return 1
	}
	return size
}

func newBenchPeer() *cobra.Command {
	return &cobra.Command{
		Use:    "bench-peer WAY SIZE",
		Short:  "The second process of a benchmark",
		Hidden: true,
		Args:   cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			size, err := strconv.Atoi(args[1])
			if err != nil {
				return err
			}
			buf := make([]byte, size)
			ctx, cancel := context.WithCancel(cmd.Context())
			defer cancel()
			if args[0] != "pipe" {
				go func() {
					io.Copy(io.Discard, os.Stdin)
					cancel()
				}()
			}
			if args[0] == "segment" {
				seg, err := shm.Attach(benchKey, storeOptions()...)
				if err != nil {
					return err
				}
				defer seg.Close()
				for err == nil {
					err = takeTurn(ctx, seg, 1, func(data []byte) { copy(buf, data) })
				}
				if ctx.Err() != nil {
					return nil // the first process has ended
				}
				return err
			}
			in, out := io.Reader(os.Stdin), io.Writer(os.Stdout)
			if args[0] == "socket" {
				conn, err := net.Dial("unix", socketPath(store))
				if err != nil {
					return err
				}
				context.AfterFunc(ctx, func() { conn.Close() })
				in, out = conn, conn
			}
			for {
				if _, err := io.ReadFull(in, buf); err != nil {
					return nil // the first process has ended
				}
				if _, err := out.Write(buf[:answerSize(size)]); err != nil {
					return nil
				}
			}
		},
	}
}

func printBench(w io.Writer, results []benchResult) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s/%s, %d processors\n\n", runtime.GOOS, runtime.GOARCH, runtime.NumCPU())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "\tBY\tMEDIAN\tP99\tCALLS/S\t")
	before := ""
	for _, r := range results {
		what := r.What
		if what == before {
			what = ""
		}
		before = r.What
		fmt.Fprintf(t, "%-19s\t%-7s\t%s\t%s\t%.0f\t\n", what, r.By, niceTime(r.Median), niceTime(r.P99), r.Rate)
	}
	t.Flush()
	_, err := io.WriteString(w, b.String())
	return err
}

// niceTime shows nanoseconds with three digits.
func niceTime(ns float64) string {
	switch {
	case ns < 1e3:
		return fmt.Sprintf("%.3g ns", ns)
	case ns < 1e6:
		return fmt.Sprintf("%.3g µs", ns/1e3)
	}
	return fmt.Sprintf("%.3g ms", ns/1e6)
}

// progress is a bar, shown only on a terminal.
type progress struct {
	out        *bufio.Writer
	done, all  int
	onTerminal bool
}

func newProgress(out io.Writer, all int) *progress {
	return &progress{out: bufio.NewWriter(out), all: all, onTerminal: isTerminal(out)}
}

const barWidth = 30

// step begins the next figure.
func (p *progress) step(what string) {
	if !p.onTerminal {
		return
	}
	full := p.done * barWidth / p.all
	fmt.Fprintf(p.out, "\r\x1b[K[%s%s] %s", strings.Repeat("█", full), strings.Repeat("░", barWidth-full), what)
	p.out.Flush()
	p.done++
}

func (p *progress) end() {
	if p.onTerminal {
		p.out.WriteString("\r\x1b[K")
		p.out.Flush()
	}
}
