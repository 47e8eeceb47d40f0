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

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// The tour: this process, and a second one of the same binary that takes orders over
// a pipe, show what the library does.

const tourHelp = `Walk through what the library does, in about two seconds.

The tour starts a second process of this program, and shows step by step:
create, attach, write and read, a lock that excludes, a process killed while it
holds the lock, the last detach, and an empty store. It checks each step, and
fails if one has another result than it should.

It has a store of its own, in the temp directory, unless --store names one.`

const tourExamples = `  demo tour
  demo tour --pace 2`

const tourKey = "demo tour"

func newTour() *cobra.Command {
	pace := units.Duration(200 * time.Millisecond)
	cmd := &cobra.Command{
		Use:               "tour",
		Short:             "Walk through create, attach, lock, crash and clean-up",
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
			t := &tour{ctx: cmd.Context(), out: cmd.OutOrStdout(), pace: time.Duration(pace), dir: dir, in: shm.Dir(dir)}
			return t.run()
		},
	}
	cmd.Flags().Var(&pace, "pace", "wait for TIME before each step")
	return withHelp(cmd, tourExamples, exitPermission, exitNoSpace)
}

type tour struct {
	ctx  context.Context
	out  io.Writer
	pace time.Duration
	dir  string
	in   shm.Option
	step int
	seg  *shm.Segment
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

// say prints what a process does.
func (t *tour) say(who, format string, args ...any) {
	fmt.Fprintf(t.out, "   %s  %s\n", dim(t.out, fmt.Sprintf("%-6s", who)), fmt.Sprintf(format, args...))
}

// wrong reports a step with another result than it should have.
func wrong(format string, args ...any) error {
	return fmt.Errorf("the tour went wrong: "+format, args...)
}

func (t *tour) run() error {
	defer func() {
		if t.peer != nil {
			t.peer.kill()
		}
		if t.seg != nil {
			t.seg.Close()
		}
	}()
	for _, step := range []struct {
		title string
		do    func() error
	}{
		{"Create: memory under a key", t.create},
		{"Attach: a second process finds it by the key alone", t.attach},
		{"Write and read: both see the same memory", t.write},
		{"Lock: while one process holds it, the other does not", t.lock},
		{"Crash: a process is killed while it holds the lock, amid a write", t.crash},
		{"Detach: the last one destroys the segment", t.detach},
	} {
		if err := t.title(step.title); err != nil {
			return err
		}
		if err := step.do(); err != nil {
			return err
		}
	}
	return nil
}

func (t *tour) create() (err error) {
	if t.seg, err = shm.Create(tourKey, 4096, t.in); err != nil {
		return err
	}
	info, err := t.seg.Info()
	if err != nil {
		return err
	}
	t.say("first", "created %q, %d bytes: process %d", tourKey, t.seg.Size(), os.Getpid())
	t.say("first", "the segment is a file, mapped, in the store %s:", t.dir)
	t.say("", "%s", info.Name)
	_, err = shm.Create(tourKey, 4096, t.in)
	if !errors.Is(err, shm.ErrExist) {
		return wrong("a second create reports %v", err)
	}
	t.say("first", "cannot create it again: already exists")
	return nil
}

func (t *tour) attach() error {
	var err error
	if t.peer, err = startTourPeer(t.dir); err != nil {
		return err
	}
	if _, err := t.peer.do("attach"); err != nil {
		return err
	}
	info, err := t.seg.Info()
	if err != nil {
		return err
	}
	if info.Attached != 2 {
		return wrong("there are %d attachments, not 2", info.Attached)
	}
	t.say("second", "attached: process %d of the same program", t.peer.pid())
	t.say("first", "sees 2 attachments now")
	return nil
}

const tourText = "hello through shared memory"

func (t *tour) write() error {
	if err := t.peer.tell("wait"); err != nil { // sleeps until the segment changes
		return err
	}
	err := t.seg.Update(func(data []byte) error {
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
	t.say("second", "slept until the change, and reads %q", got)
	return nil
}

func (t *tour) lock() error {
	if _, err := t.peer.do("lock"); err != nil {
		return err
	}
	t.say("second", "locks the segment")
	ok, err := t.seg.TryLock()
	if err != nil {
		return err
	}
	if ok {
		return wrong("two processes hold the lock")
	}
	short, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	if err := t.seg.LockContext(short); !errors.Is(err, context.DeadlineExceeded) {
		return wrong("a lock that the second process holds reports %v", err)
	}
	t.say("first", "tries to lock, and cannot; tries for 50ms, and gives up after %v", time.Since(start).Round(time.Millisecond))
	if err := t.peer.tell("unlock"); err != nil {
		return err
	}
	if err := t.seg.LockContext(t.ctx); err != nil {
		return err
	}
	defer t.seg.Unlock()
	if _, err := t.peer.answer(); err != nil {
		return err
	}
	t.say("second", "unlocks")
	t.say("first", "has waited for that, and holds the lock now")
	if t.seg.Abandoned() {
		return wrong("the lock is reported as abandoned")
	}
	return nil
}

func (t *tour) crash() error {
	if _, err := t.peer.do("break"); err != nil {
		return err
	}
	t.say("second", "locks, and writes the first half: %q", t.seg.Data()[:len(tourText)])
	t.peer.kill()
	t.say("first", "kills process %d", t.peer.pid())
	start := time.Now()
	if err := t.seg.LockContext(t.ctx); err != nil {
		return err
	}
	took := time.Since(start)
	defer t.seg.Unlock()
	if !t.seg.Abandoned() {
		return wrong("the lock is not reported as abandoned")
	}
	t.say("first", "locks within %v, and learns that the lock was abandoned:", took.Round(time.Millisecond))
	t.say("", "the text may be half-written, so it repairs the text")
	copy(t.seg.Data(), tourText)
	info, err := t.seg.Info()
	if err != nil {
		return err
	}
	if info.Attached != 1 {
		return wrong("there are %d attachments, not 1", info.Attached)
	}
	t.say("first", "sees 1 attachment: dead processes do not count")
	return nil
}

func (t *tour) detach() error {
	if err := t.seg.Detach(); err != nil {
		return err
	}
	t.say("first", "detaches, as the last process")
	if _, err := shm.Attach(tourKey, t.in); !errors.Is(err, shm.ErrNotExist) {
		return wrong("attaching to a destroyed segment reports %v", err)
	}
	t.say("first", "cannot attach any more: does not exist")
	if store != "" {
		return nil // other processes may have segments in it
	}
	left, err := os.ReadDir(t.dir)
	if err != nil {
		return err
	}
	if len(left) > 0 {
		return wrong("%d files are left in %s: %v", len(left), t.dir, left)
	}
	t.say("store", "is empty, though a process was killed")
	return nil
}

// A tourProcess is the second process, as the first one sees it.
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

// do gives the process an order and waits for its answer.
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

// newTourPeer is the second process: each line of its input is an order, and it
// answers with a line.
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
