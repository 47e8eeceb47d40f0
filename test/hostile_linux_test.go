package test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qshm/lockfile"
	"qshm/shm"
)

// What an administrator or an attacker can do to processes and stores: no process takes
// the lock from a live owner, no dead process counts as alive, and every wait ends.

func init() {
	// A device is one more file that is not a segment.
	foreignFiles = append(foreignFiles, foreignFile{"device", func(t *testing.T, path string) {
		if err := syscall.Mknod(path, syscall.S_IFCHR|0o600, 1<<8|3); err != nil {
			t.Skipf("no permission to make device nodes: %v", err)
		}
	}})
	extra["chroot"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		return errors.Join(syscall.Chroot(string(r.Data)), os.Chdir("/"))
	}
	extra["setuid"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		return syscall.Setuid(r.N)
	}
	// holdfilelock takes the file lock of a segment and keeps it. Reading the file suffices.
	extra["holdfilelock"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		fd, err := syscall.Open(string(r.Data), syscall.O_RDONLY, 0)
		if err == nil {
			err = syscall.Flock(fd, syscall.LOCK_EX)
		}
		return err // the descriptor stays open
	}
	// readlockslots puts a shared record lock on all slots but the second. Reading the file
	// suffices.
	extra["readlockslots"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		fd, err := syscall.Open(string(r.Data), syscall.O_RDONLY, 0)
		if err != nil {
			return err
		}
		for _, slots := range []unix.Flock_t{{Start: 1 << 40, Len: 1}, {Start: 1<<40 + 2, Len: 1 << 20}} {
			slots.Type = unix.F_RDLCK
			err = errors.Join(err, unix.FcntlFlock(uintptr(fd), unix.F_OFD_SETLK, &slots))
		}
		return err
	}
	extra["patience"] = func(_ *child, _ context.Context, r request, _ *answer) error {
		lockfile.Patience = r.Timeout
		return nil
	}
}

// needRecordLocks skips a test where slot locks are sibling files. These need a path to
// the store, and the permission to open and remove them.
func needRecordLocks(t *testing.T) {
	t.Helper()
	if slotLocks() == lockfile.SiblingFiles {
		t.Skip("slot locks are sibling files here")
	}
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may do this")
	}
	if os.Getenv(envExec) != "" {
		t.Skip("an emulator does not do this")
	}
}

func TestProcessInAChrootSeesALiveOwner(t *testing.T) {
	needRoot(t)
	st := newStore(t)
	owner, confined := st.start(), st.start()
	mine, theirs := owner.create("k", 64), confined.attach("k")
	mine.lock()
	confined.do(request{Op: "chroot", Data: []byte(t.TempDir())})
	theirs.wantHeld()
	theirs.detach()
	st.wantFiles("k")
	mine.unlock()
	wantPIDs(t, owner.stat("k"), owner)
	mine.detach()
	st.wantFiles()
}

func TestProcessInAChrootSeesADeadOwner(t *testing.T) {
	needRoot(t)
	needRecordLocks(t)
	st := newStore(t)
	owner, confined := st.start(), st.start()
	mine, theirs := owner.create("k", 64), confined.attach("k")
	mine.lock()
	confined.do(request{Op: "chroot", Data: []byte(t.TempDir())})
	theirs.takeOverFrom(owner)
	theirs.unlock()
	theirs.detach() // cannot remove the file, which is garbage now
	_, err := st.start().tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
	st.wantFiles()
}

func TestOwnerKeepsTheLockInAnEmptiedStore(t *testing.T) {
	st := newStore(t)
	owner, other := st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	must(t, os.Remove(st.path("k")))
	theirs.wantHeld()
	fresh := other.create("k", 64)
	theirs.takeOverFrom(owner)
	theirs.unlock()
	theirs.detach()
	wantPIDs(t, other.stat("k"), other) // the new segment is as before
	fresh.detach()
}

func TestDeadProcessIsFoundAfterSetuid(t *testing.T) {
	needRoot(t)
	needRecordLocks(t)
	st := newStore(t)
	owner, other := st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	other.do(request{Op: "setuid", N: 65534})
	theirs.wantHeld()
	theirs.takeOverFrom(owner)
	theirs.unlock()
	if got := theirs.info().Attached; got != 1 {
		t.Errorf("after setuid, %d attached, want 1", got)
	}
	_, err := theirs.try(request{Op: "detach"}) // may not remove the file
	wantError(t, err, shm.ErrPermission)
	_, err = st.start().tryAttach("k")
	wantError(t, err, shm.ErrNotExist)
}

// A user who may read a segment's file can hold its file lock: calls that need it end
// with an error that says so.
func TestWaitForAHeldFileLockIsBounded(t *testing.T) {
	st := newStore(t)
	owner, reader, newcomer := st.start(), st.start(), st.start()
	mine := owner.create("k", 64)
	reader.do(request{Op: "holdfilelock", Data: []byte(st.path("k"))})
	newcomer.do(request{Op: "patience", Timeout: 300 * time.Millisecond})
	owner.do(request{Op: "patience", Timeout: 300 * time.Millisecond})

	_, err := newcomer.tryAttach("k")
	if !errors.Is(err, shm.ErrBusy) || !strings.Contains(fmt.Sprint(err), st.path("k")) || !strings.Contains(fmt.Sprint(err), "held the file lock") {
		t.Errorf("Attach: %v, want %v, with the path and the reason", err, shm.ErrBusy)
	}
	_, err = newcomer.tryAttach("k", opts{Timeout: 50 * time.Millisecond})
	wantError(t, err, context.DeadlineExceeded)
	wantError(t, newcomer.tryRemove("k"), shm.ErrBusy)
	_, err = mine.try(request{Op: "grow", N: 100})
	wantError(t, err, shm.ErrBusy)
	mine.lock() // the segment's lock does not need the file lock
	mine.unlock()
	mine.detach() // does not wait for the file lock, and leaves garbage
	reader.kill()
	newcomer.create("k", 64).detach()
}

// A user who may read a segment's file can put shared locks on the slots. Then no slot can
// be claimed, but no dead process counts as alive, and its lock can be taken over.
func TestSharedLocksKeepNoSlotAlive(t *testing.T) {
	needRecordLocks(t)
	st := newStore(t)
	owner, other, reader := st.start(), st.start(), st.start()
	mine, theirs := owner.create("k", 64), other.attach("k")
	mine.lock()
	owner.kill()
	reader.do(request{Op: "readlockslots", Data: []byte(st.path("k"))})
	if got := theirs.info().Attached; got != 1 {
		t.Errorf("%d attached, want 1: shared locks keep a dead process alive", got)
	}
	theirs.lock()
	if !theirs.abandoned() {
		t.Error("Abandoned is false after the owner's death, want true")
	}
	theirs.unlock()
	_, err := st.start().tryAttach("k")
	wantError(t, err, shm.ErrNoSpace)
	other.kill()
	if info := st.start().stat("k"); info.Status != shm.StatusDead {
		t.Errorf("status %v after the death of all processes, want dead", info.Status)
	}
}

// In a sticky store, which all users may write, only the owner of a file may remove it.
// Another user's garbage is no obstacle if its file may be written; otherwise the error
// names the file and its owner.
func TestGarbageOfAnotherUserInAStickyStore(t *testing.T) {
	needRecordLocks(t)
	start := anotherUser(t)
	for _, shared := range []bool{true, false} {
		t.Run(fmt.Sprint("writable=", shared), func(t *testing.T) {
			st := newStoreIn(t, filepath.Join(sharedTemp(t), "store"))
			must(t, os.Mkdir(st.dir, 0o777))
			must(t, os.Chmod(st.dir, 0o777|os.ModeSticky))
			must(t, os.Chmod(filepath.Dir(st.dir), 0o755))
			perm := os.FileMode(0o600)
			if shared {
				perm = 0o666
			}
			owner := st.start()
			s := owner.create("k", 1<<20, opts{Perm: perm})
			s.poke(0, "old")
			owner.kill()
			must(t, os.Chown(st.path("k"), 65533, 65533))

			user := start(st)
			s, err := user.tryCreate("k", 100)
			if !shared {
				if !errors.Is(err, shm.ErrPermission) || !strings.Contains(err.Error(), "65533") || !strings.Contains(err.Error(), st.path("k")) {
					t.Errorf("Create: %v, want %v, with the path and the owner", err, shm.ErrPermission)
				}
				return
			}
			must(t, err)
			if got := s.peek(0, 3); got != "\x00\x00\x00" {
				t.Errorf("the new segment begins with %q, want zeros", got)
			}
			wantPIDs(t, user.stat("k"), user)
			s.detach()
			if info, err := os.Stat(st.path("k")); err == nil && info.Size() > 0 {
				t.Errorf("the file has %d bytes after the last Detach, want none", info.Size())
			}
			user.create("k", 100).detach()
		})
	}
}

// Signals interrupt the sleeps of a waiter, which asks all the same whether the owner is
// alive.
func TestWaiterInterruptedBySignalsTakesOver(t *testing.T) {
	needNative(t)
	st := newStore(t)
	owner, waiter := st.start(), st.start()
	held, theirs := owner.create("k", 64), waiter.attach("k")
	held.lock()
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() { // more often than any sleep lasts
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
				threads, _ := os.ReadDir(fmt.Sprintf("/proc/%d/task", waiter.pid))
				for _, thread := range threads {
					if tid, err := strconv.Atoi(thread.Name()); err == nil {
						unix.Tgkill(waiter.pid, tid, unix.SIGURG)
					}
				}
			}
		}
	}()
	theirs.takeOverFrom(owner)
	close(stop)
	<-stopped
}
