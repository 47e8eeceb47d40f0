package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/shm"
)

// This file shows, in two seconds, what the library does: this process and a
// second one of the same binary, which does what it is told over a pipe.

const tourHelp = `Walk through what the library does, in about two seconds.

The tour starts a second process of this program, and shows step by step: create,
attach, write and read, a lock that excludes, a process killed while it holds the
lock, the last detach, and that nothing is left. Each step is checked; should one
not be as it must be, the tour says so and fails.

It has a store of its own, in the temp directory, unless --store names one.`

const tourKey = "demo tour"

func newTour() *cobra.Command {
	var pace time.Duration
	cmd := &cobra.Command{
		Use:               "tour",
		Short:             "Walk through create, attach, lock, crash and clean-up in two seconds",
		Long:              tourHelp,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir := store
			if dir == "" {
				var err error
				if dir, err = os.MkdirTemp("", "demo-tour-"); err != nil {
					return err
				}
				defer os.RemoveAll(dir)
			}
			t := &tour{ctx: cmd.Context(), out: cmd.OutOrStdout(), pace: pace, dir: dir, in: shm.Dir(dir)}
			return t.run()
		},
	}
	cmd.Flags().DurationVar(&pace, "pace", 200*time.Millisecond, "how long to `PAUSE` before each step")
	return cmd
}

type tour struct {
	ctx  context.Context
	out  io.Writer
	pace time.Duration
	dir  string
	in   shm.Option
	step int
	peer *tourProcess
}

// title begins a step.
func (t *tour) title(text string) error {
	if t.step > 0 {
		if err := pause(t.ctx, t.pace); err != nil {
			return err
		}
		fmt.Fprintln(t.out)
	}
	t.step++
	_, err := fmt.Fprintln(t.out, bold(t.out, fmt.Sprintf("%d. %s", t.step, text)))
	return err
}

func (t *tour) say(who, format string, args ...any) {
	fmt.Fprintf(t.out, "   %s  %s\n", dim(t.out, fmt.Sprintf("%-6s", who)), fmt.Sprintf(format, args...))
}

// wrong is a step that did not turn out as promised.
func wrong(format string, args ...any) error {
	return fmt.Errorf("the tour went wrong: "+format, args...)
}

func (t *tour) run() error {
	steps := []struct {
		title string
		do    func(*shm.Segment) error
	}{
		{"Create: memory under a key", nil},
		{"Attach: a second process finds it by the key alone", t.attach},
		{"Write and read: both see the same memory", t.write},
		{"Lock: while one has it, the other does not", t.lock},
		{"Crash: a process is killed inside the lock, half-way through a write", t.crash},
		{"Detach: with the last one, the segment is gone", t.detach},
	}
	defer func() {
		if t.peer != nil {
			t.peer.kill()
		}
	}()
	var seg *shm.Segment
	for _, s := range steps {
		if err := t.title(s.title); err != nil {
			return err
		}
		var err error
		if seg == nil {
			seg, err = t.create()
			if err == nil {
				defer seg.Close()
			}
		} else {
			err = s.do(seg)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) create() (*shm.Segment, error) {
	seg, err := shm.Create(tourKey, 4096, t.in)
	if err != nil {
		return nil, err
	}
	info, err := seg.Info()
	if err != nil {
		return nil, err
	}
	t.say("first", "created %q, %d bytes: process %d", tourKey, seg.Size(), os.Getpid())
	t.say("first", "it is a file, mapped: %s", info.Path)
	_, err = shm.Create(tourKey, 4096, t.in)
	if !errors.Is(err, shm.ErrExist) {
		return nil, wrong("a second create reports %v", err)
	}
	t.say("first", "creating it again is refused: already exists")
	return seg, nil
}

func (t *tour) attach(seg *shm.Segment) error {
	var err error
	if t.peer, err = startTourPeer(t.dir); err != nil {
		return err
	}
	if _, err := t.peer.do("attach"); err != nil {
		return err
	}
	info, err := seg.Info()
	if err != nil {
		return err
	}
	if info.Attached != 2 {
		return wrong("%d are attached, not 2", info.Attached)
	}
	t.say("second", "attached: process %d of the same program", t.peer.pid())
	t.say("first", "sees that %d are attached now", info.Attached)
	return nil
}

const tourText = "hello through shared memory"

func (t *tour) write(seg *shm.Segment) error {
	if err := t.peer.tell("wait"); err != nil { // sleeps until something changes
		return err
	}
	err := seg.Update(func(data []byte) error {
		copy(data, tourText)
		return nil
	})
	if err != nil {
		return err
	}
	t.say("first", "writes %q", tourText)
	got, err := t.peer.answer()
	if err != nil {
		return err
	}
	if got != tourText {
		return wrong("the second process reads %q", got)
	}
	t.say("second", "waited for a change, is woken by it, and reads %q", got)
	return nil
}

func (t *tour) lock(seg *shm.Segment) error {
	if _, err := t.peer.do("lock"); err != nil {
		return err
	}
	t.say("second", "locks the segment")
	ok, err := seg.TryLock()
	if err != nil {
		return err
	}
	if ok {
		return wrong("two processes have the lock")
	}
	short, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := seg.LockContext(short); !errors.Is(err, context.DeadlineExceeded) {
		return wrong("a lock that is taken could be had: %v", err)
	}
	t.say("first", "tries, and is refused; waits, and gives up after %v as it wanted", time.Since(start).Round(time.Millisecond))
	if err := t.peer.tell("unlock"); err != nil {
		return err
	}
	if err := seg.LockContext(t.ctx); err != nil {
		return err
	}
	defer seg.Unlock()
	if _, err := t.peer.answer(); err != nil {
		return err
	}
	t.say("second", "unlocks")
	t.say("first", "waits again, and has it")
	if seg.Abandoned() {
		return wrong("the lock counts as abandoned")
	}
	return nil
}

func (t *tour) crash(seg *shm.Segment) error {
	if _, err := t.peer.do("break"); err != nil {
		return err
	}
	t.say("second", "locks, and has written half of it: %q", seg.Data()[:len(tourText)])
	t.peer.kill()
	t.say("first", "kills process %d", t.peer.pid())
	start := time.Now()
	if err := seg.LockContext(t.ctx); err != nil {
		return err
	}
	took := time.Since(start)
	defer seg.Unlock()
	if !seg.Abandoned() {
		return wrong("the lock does not count as abandoned")
	}
	t.say("first", "locks: has it after %v, and is told that the lock was abandoned,", took.Round(time.Millisecond))
	t.say("", "so it knows that the text may be half-written, and repairs it")
	copy(seg.Data(), tourText)
	info, err := seg.Info()
	if err != nil {
		return err
	}
	if info.Attached != 1 {
		return wrong("%d are attached, not 1", info.Attached)
	}
	t.say("first", "sees that 1 is attached: the dead are not counted")
	return nil
}

func (t *tour) detach(seg *shm.Segment) error {
	if err := seg.Detach(); err != nil {
		return err
	}
	t.say("first", "detaches, the last one")
	if _, err := shm.Attach(tourKey, t.in); !errors.Is(err, shm.ErrNotExist) {
		return wrong("attaching to what is gone reports %v", err)
	}
	t.say("first", "attaching once more is refused: does not exist")
	if store != "" {
		return nil // others may have segments there
	}
	left, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return wrong("%d files are left in %s: %v", len(left), t.dir, left)
	}
	t.say("store", "is empty: nothing is left, though a process was killed")
	return nil
}

// The second process.

type tourProcess struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Reader
}

func startTourPeer(dir string) (*tourProcess, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	p := &tourProcess{cmd: exec.Command(self, "tour-peer", "--store", dir)}
	p.cmd.Stderr = os.Stderr
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.out = bufio.NewReader(out)
	return p, p.cmd.Start()
}

func (p *tourProcess) pid() int { return p.cmd.Process.Pid }

// do tells the process to do something and waits until it has.
func (p *tourProcess) do(what string) (string, error) {
	if err := p.tell(what); err != nil {
		return "", err
	}
	return p.answer()
}

func (p *tourProcess) tell(what string) error {
	_, err := io.WriteString(p.in, what+"\n")
	return err
}

func (p *tourProcess) answer() (string, error) {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return "", wrong("the second process has ended: %w", err)
	}
	return strings.TrimSuffix(line, "\n"), nil
}

func (p *tourProcess) kill() {
	p.cmd.Process.Kill()
	p.cmd.Wait()
}

// newTourPeer is what the second process runs: it does what its input says, and
// answers with a line each time.
func newTourPeer() *cobra.Command {
	return &cobra.Command{
		Use:    "tour-peer",
		Short:  "The second process of a tour",
		Hidden: true,
		Args:   noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var seg *shm.Segment
			for in := bufio.NewScanner(cmd.InOrStdin()); in.Scan(); {
				reply, err := "done", error(nil)
				switch in.Text() {
				case "attach":
					seg, err = shm.Attach(tourKey, storeOptions()...)
				case "wait":
					if _, err = seg.Wait(cmd.Context(), 0); err == nil {
						buf := make([]byte, len(tourText))
						_, _, err = seg.Snapshot(buf)
						reply = string(buf)
					}
				case "lock":
					err = seg.Lock()
				case "unlock":
					err = seg.Unlock()
				case "break":
					if err = seg.Lock(); err == nil {
						copy(seg.Data(), "HELLO TH")
					}
				}
				if err != nil {
					return err
				}
				fmt.Fprintln(cmd.OutOrStdout(), reply)
			}
			return nil
		},
	}
}
