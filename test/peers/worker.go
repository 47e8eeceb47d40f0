//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// workerEnv is set in the environment of a worker. Its command line is that of the peers in C: see src/peer.h.
const workerEnv = "QSHM_PEERS_WORKER"

// goPeers are the peers in Go.
var goPeers = []goPeer{qshmPeer, memcpyPeer, busyPeer, spinPeer, floorPeer, flockPeer, gofrsPeer, semopPeer, pipePeer, unixPeer, tcpPeer}

type goPeer struct {
	variant, name, version string
	ops                    map[string]func(*worker) error
}

// worker is the side of the measured process.
type worker struct {
	args map[string]string
	in   *bufio.Reader
	base int64 // CLOCK_MONOTONIC at the time that `at` stands for
	at   time.Time
}

// runWorker does what the command line says and ends the process.
func runWorker(args []string) {
	err := errorNoPeer(args)
	if len(args) >= 2 {
		for _, p := range goPeers {
			if op := p.ops[args[1]]; p.variant == args[0] && op != nil {
				err = op(newWorker(args[2:]))
			}
		}
	}
	if err != nil {
		say(figures{Error: err.Error()})
		os.Exit(1)
	}
	os.Exit(0)
}

func errorNoPeer(args []string) error {
	return fmt.Errorf("no such peer or operation: %s", strings.Join(args, " "))
}

func newWorker(args []string) *worker {
	w := &worker{args: map[string]string{}, in: bufio.NewReader(os.Stdin)}
	for _, a := range args {
		k, v, _ := strings.Cut(a, "=")
		w.args[k] = v
	}
	w.setClock()
	return w
}

// setClock finds the offset between the runtime's clock and CLOCK_MONOTONIC, which all processes share. Both can only be
// read one after the other, so the shortest of several readings counts.
func (w *worker) setClock() {
	best := time.Hour
	for range 50 {
		at := time.Now()
		base := monotonic()
		if took := time.Since(at); took < best {
			best, w.at, w.base = took, at, base-int64(took)/2
		}
	}
}

// monotonic reads CLOCK_MONOTONIC by a system call. now is faster.
func monotonic() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &t)
	return t.Nano()
}

// now is the same clock read through the runtime, without a system call.
func (w *worker) now() int64 { return w.base + int64(time.Since(w.at)) }

func cpuTime() int64 {
	var t unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t)
	return t.Nano()
}

func (w *worker) arg(name string) string { return w.args[name] }

func (w *worker) number(name string, otherwise int) int {
	if n, err := strconv.Atoi(w.args[name]); err == nil {
		return n
	}
	return otherwise
}

// waitForGo says that the set-up is done, and sleeps until the time that the runner names. ok is false if the runner has
// ended.
func (w *worker) waitForGo() (begin int64, ok bool) {
	say(figures{Ready: true})
	line, err := w.in.ReadString('\n')
	if err != nil {
		return 0, false
	}
	begin, _ = strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	time.Sleep(time.Duration(begin - w.now()))
	return begin, true
}

// waitForEnd returns when the runner has all figures, or has ended. Only then may memory be destroyed.
func (w *worker) waitForEnd() { _, _ = io.Copy(io.Discard, w.in) }

func say(f figures) {
	if err := json.NewEncoder(os.Stdout).Encode(f); err != nil {
		_ = json.NewEncoder(os.Stdout).Encode(figures{Error: err.Error()})
	}
}

// measure runs body between go and end, and prints what it found.
func (w *worker) measure(body func(begin int64) (figures, error)) error {
	defer w.waitForEnd()
	begin, ok := w.waitForGo()
	if !ok {
		return nil
	}
	f, err := body(begin)
	if err == nil {
		say(f)
	} else {
		say(figures{Error: err.Error()})
	}
	return nil
}

// bench repeats a batch of an operation for `ms` milliseconds. Batches last about 50 µs, and the median of them counts,
// so preemption, which lengthens a few batches, does not change the figure. The loop is in batch, so that no call
// through a func value is measured.
func (w *worker) bench(batch func(n int) error) error {
	return w.measure(func(int64) (figures, error) {
		var per []float64
		n, total, cpu := 1, 0, cpuTime()
		begin := time.Now()
		length := time.Duration(w.number("ms", 100)) * time.Millisecond
		for time.Since(begin) < length {
			t := time.Now()
			if err := batch(n); err != nil {
				return figures{}, err
			}
			took := time.Since(t)
			total += n
			per = append(per, float64(took)/float64(n))
			if took < 50*time.Microsecond && n < 1<<20 {
				n *= 2
				per = per[:0] // the batch was too short
			}
		}
		wall := time.Since(begin)
		if len(per) == 0 {
			per = append(per, float64(wall)/float64(total))
		}
		slices.Sort(per)
		return figures{N: int64(total), NS: int64(wall), CPU: cpuTime() - cpu, Op: per[len(per)/2]}, nil
	})
}

// pace measures how fast payloads arrive: the median time of laps of length payloads each. A moment without a processor
// lengthens one lap, and does not change the median.
type pace struct {
	laps       []float64
	length, in int
	since      time.Time
}

func newPace(payloads, slots int) *pace {
	length := min(slots, payloads)
	return &pace{laps: make([]float64, 0, payloads/length), length: length}
}

// each returns the time for one payload, or 0 for the sender.
func (p *pace) each() float64 {
	if len(p.laps) == 0 {
		return 0
	}
	return median(p.laps)
}

func (p *pace) start() { p.since, p.in = time.Now(), 0 }

func (p *pace) step() {
	if p.in++; p.in < p.length {
		return
	}
	p.laps = append(p.laps, float64(time.Since(p.since))/float64(p.length))
	p.start()
}
