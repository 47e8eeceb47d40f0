package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

// The tour: this process and a second one show what the library does.

const (
	tourKey  = "demo tour"
	tourText = "hello through shared memory"
)

func newTour() *cobra.Command {
	pace := units.Duration(200 * time.Millisecond)
	cmd := plainCommand("tour", "Walk through create, attach, lock, crash and clean-up", func(cmd *cobra.Command) error {
		t := &tour{ctx: cmd.Context(), out: cmd.OutOrStdout(), own: store == ""}
		if t.own {
			var err error
			if store, err = os.MkdirTemp("", "demo-tour-"); err != nil {
				return err
			}
			defer os.RemoveAll(store)
		}
		return t.run(time.Duration(pace))
	})
	cmd.Flags().Var(&pace, "pace", "wait for TIME before each step")
	return withHelp(cmd)
}

type tour struct {
	ctx    context.Context
	out    io.Writer
	own    bool // the store is the tour's own
	seg    *shm.Segment
	second *peer
	err    error // the first; after it nothing is printed
}

func (t *tour) run(pace time.Duration) error {
	defer func() {
		if t.second != nil {
			t.second.kill()
		}
		if t.seg != nil {
			t.seg.Close()
		}
	}()
	for i, step := range []struct {
		title string
		do    func()
	}{
		{"Create: memory under a key", t.create},
		{"Attach: a second process finds it by the key alone", t.attach},
		{"Write and read: both see the same memory", t.write},
		{"Lock: while one process holds it, the other does not", t.lock},
		{"Crash: a process is killed while it holds the lock, amid a write", t.crash},
		{"Detach: the last one destroys the segment", t.detach},
	} {
		if i > 0 {
			t.check(pause(t.ctx, pace))
			t.print("\n")
		}
		t.print("%s\n", terminal.Bold(t.out, fmt.Sprintf("%d. %s", i+1, step.title)))
		if t.err == nil {
			step.do()
		}
	}
	return t.err
}

func (t *tour) print(format string, args ...any) {
	if t.err == nil {
		_, t.err = fmt.Fprintf(t.out, format, args...)
	}
}

// say prints what a process does.
func (t *tour) say(who, format string, args ...any) {
	t.print("   %s  %s\n", terminal.Dim(t.out, fmt.Sprintf("%-6s", who)), fmt.Sprintf(format, args...))
}

func (t *tour) check(err error) {
	if t.err == nil {
		t.err = err
	}
}

// want reports a step with another result than it should have.
func (t *tour) want(ok bool, format string, args ...any) {
	if !ok {
		t.check(fmt.Errorf("the tour went wrong: "+format, args...))
	}
}

// tell gives the second process an order, and answer waits until it is done.
func (t *tour) tell(order string) {
	if t.err == nil {
		t.err = t.second.tell(order)
	}
}

func (t *tour) answer() (reply string) {
	if t.err == nil {
		reply, t.err = t.second.answer()
	}
	return reply
}

func (t *tour) wantAttached(n int) {
	info, err := t.seg.Info()
	t.check(err)
	t.want(info.Attached == n, "there are %d attachments, not %d", info.Attached, n)
}

func (t *tour) create() {
	var err error
	t.seg, err = shm.Create(tourKey, 4096, storeOptions()...)
	t.check(err)
	info, err := shm.Stat(tourKey, storeOptions()...)
	t.check(err)
	t.say("first", "created %q, %d bytes: process %d", tourKey, info.Size, os.Getpid())
	t.say("first", "the segment is a file, mapped, in the store %s:", store)
	t.say("", "%s", info.Name)
	_, err = shm.Create(tourKey, 4096, storeOptions()...)
	t.want(errors.Is(err, shm.ErrExist), "a second create reports %v", err)
	t.say("first", "cannot create it again: already exists")
}

func (t *tour) attach() {
	if t.second, t.err = startPeer(tourKey); t.err != nil {
		return
	}
	t.tell("attach")
	t.answer()
	t.wantAttached(2)
	t.say("second", "attached: process %d of the same program", t.second.cmd.Process.Pid)
	t.say("first", "sees 2 attachments now")
}

func (t *tour) write() {
	t.tell("wait") // it sleeps until the segment changes
	t.check(t.seg.Update(func(data []byte) error {
		copy(data, tourText)
		return nil
	}))
	t.say("first", "writes %q", tourText)
	got := t.answer()
	t.want(got == tourText, "the second process reads %q", got)
	t.say("second", "slept until the change, and reads %q", got)
}

func (t *tour) lock() {
	t.tell("lock")
	t.answer()
	t.say("second", "locks the segment")
	ok, err := t.seg.TryLock()
	t.check(err)
	t.want(!ok, "two processes hold the lock")
	short, cancel := context.WithTimeout(t.ctx, 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	err = t.seg.LockContext(short)
	t.want(errors.Is(err, context.DeadlineExceeded), "a lock that the second process holds reports %v", err)
	t.say("first", "tries to lock, and cannot; tries for 50ms, and gives up after %v", time.Since(start).Round(time.Millisecond))
	t.tell("unlock")
	t.check(t.seg.LockContext(t.ctx))
	t.answer()
	t.say("second", "unlocks")
	t.say("first", "has waited for that, and holds the lock now")
	t.want(!t.seg.Abandoned(), "the lock is reported as abandoned")
	t.check(t.seg.Unlock())
}

func (t *tour) crash() {
	t.tell("break")
	t.answer()
	t.say("second", "locks, and writes the first half: %q", tourText[:len(tourText)/2])
	t.second.kill()
	t.say("first", "kills process %d", t.second.cmd.Process.Pid)
	start := time.Now()
	t.check(t.seg.LockContext(t.ctx))
	took := time.Since(start)
	t.want(t.seg.Abandoned(), "the lock is not reported as abandoned")
	t.say("first", "locks within %v, and learns that the lock was abandoned:", took.Round(time.Millisecond))
	t.say("", "the text may be half-written, so it repairs the text")
	copy(t.seg.Data(), tourText)
	t.check(t.seg.Unlock())
	t.wantAttached(1)
	t.say("first", "sees 1 attachment: dead processes do not count")
}

func (t *tour) detach() {
	t.check(t.seg.Detach())
	t.say("first", "detaches, as the last process")
	_, err := shm.Attach(tourKey, storeOptions()...)
	t.want(errors.Is(err, shm.ErrNotExist), "attaching to a destroyed segment reports %v", err)
	t.say("first", "cannot attach any more: does not exist")
	if !t.own {
		return // other processes may have segments in it
	}
	left, err := os.ReadDir(store)
	t.check(err)
	t.want(len(left) == 0, "%d files are left in %s: %v", len(left), store, left)
	t.say("store", "is empty, though a process was killed")
}
