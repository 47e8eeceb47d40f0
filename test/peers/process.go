//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// figures is a line that a worker prints; which members are set depends on the operation.
type figures struct {
	Ready bool    `json:"ready,omitempty"`
	Error string  `json:"error,omitempty"`
	N     int64   `json:"n,omitempty"`
	NS    int64   `json:"ns,omitempty"`
	CPU   int64   `json:"cpu_ns,omitempty"`
	Op    float64 `json:"op_ns,omitempty"`  // the median batch's time per operation
	Total uint64  `json:"total,omitempty"`  // what the contended section counted
	Alloc float64 `json:"allocs,omitempty"` // heap allocations per operation
	Begin int64   `json:"begin,omitempty"`
	End   int64   `json:"end,omitempty"`
	Max   int64   `json:"max,omitempty"`
	Hist  *hist   `json:"hist,omitempty"`
}

// process is a worker as the runner sees it.
type process struct {
	peer *peer
	what string
	args []string
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *bufio.Reader
	err  strings.Builder
	late *time.Timer
}

// patience is how long a worker may take for one operation. The runner kills one that takes longer, and the row says so.
const patience = 20 * time.Second

// tearDown is how long a worker may take to end.
const tearDown = 3 * time.Second

// start starts a worker. ready waits until the worker is set up.
func start(p *peer, op string, args ...string) (*process, error) {
	w := &process{peer: p, what: p.name + " " + op, args: args}
	w.cmd = p.cmd(op, args...)
	w.cmd.Stderr = &w.err
	// An interrupt from the terminal must reach the runner only: a worker would leave its semaphores behind. If the
	// runner is killed, its workers end too: some of them would go on for ever.
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	var err error
	if w.in, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.out = bufio.NewReader(out)
	if err := w.cmd.Start(); err != nil {
		return nil, err
	}
	w.late = time.AfterFunc(patience, func() { _ = w.cmd.Process.Kill() })
	return w, nil
}

func (w *process) read() (figures, error) {
	line, err := w.out.ReadBytes('\n')
	if err != nil {
		return figures{}, fmt.Errorf("%s: no answer: %s", w.what, strings.Join(strings.Fields(w.err.String()), " "))
	}
	var f figures
	if err := json.Unmarshal(line, &f); err != nil {
		return f, fmt.Errorf("%s: %q: %w", w.what, line, err)
	}
	if f.Error != "" {
		return f, errors.New(f.Error)
	}
	if f.Hist != nil {
		f.Hist.max = f.Max
	}
	return f, nil
}

func (w *process) ready() error {
	_, err := w.read()
	return err
}

func (w *process) goAt(t int64) { _, _ = fmt.Fprintln(w.in, t) }

// end lets the worker tear down, and waits for it. If it does not end, end kills it and removes what it leaves in the
// system.
func (w *process) end() {
	w.late.Reset(tearDown)
	_ = w.in.Close()
	_, _ = io.Copy(io.Discard, w.out)
	_ = w.cmd.Wait()
	if !w.late.Stop() && w.peer.can("clean") {
		_ = w.peer.cmd("clean", w.args...).Run()
	}
}

// endAll ends the last worker first: Qt loses its locks if the creator ends before the others, or all end at once.
func endAll(running []*process) {
	for _, w := range slices.Backward(running) {
		w.end()
	}
}

// job says how to start a worker. An experiment has several.
type job struct {
	peer *peer
	op   string
	args []string
	aux  bool // it only keeps the segment until the others are done

	bound bool // it runs on one processor: the first job on the first, and so on
}

// start starts the job, the i-th of an experiment.
func (j *job) start(i int) (*process, error) {
	if !j.bound {
		return start(j.peer, j.op, j.args...)
	}
	runtime.LockOSThread() // a child inherits the processors of the thread that starts it
	defer runtime.UnlockOSThread()
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return nil, err
	}
	left := i % all.Count()
	for cpu := 0; one.Count() == 0; cpu++ {
		if all.IsSet(cpu) {
			if left == 0 {
				one.Set(cpu)
			}
			left--
		}
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil {
		return nil, err
	}
	defer func() { _ = unix.SchedSetaffinity(0, &all) }()
	return start(j.peer, j.op, j.args...)
}

// together starts the jobs one after another, each when the one before is ready (the first one creates what the
// others attach to), lets them all begin at the same time, and returns their figures in the same order.
func together(jobs ...job) ([]figures, error) {
	var running []*process
	defer func() { endAll(running) }()
	for i, j := range jobs {
		w, err := j.start(i)
		if err != nil {
			return nil, err
		}
		running = append(running, w)
		if err := w.ready(); err != nil {
			return nil, err
		}
	}
	begin := monotonic() + int64(3*time.Millisecond)
	for i, w := range running {
		if !jobs[i].aux {
			w.goAt(begin)
		}
	}
	all := make([]figures, len(jobs))
	for i, w := range running {
		if jobs[i].aux {
			continue
		}
		f, err := w.read()
		if err != nil {
			return nil, err
		}
		all[i] = f
	}
	return all, nil
}
