package lockfile

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func init() {
	commands["chroot"] = func(args []string) (any, error) {
		return "confined", errors.Join(syscall.Chroot(args[0]), os.Chdir("/"))
	}
	commands["deny"] = func(args []string) (any, error) {
		return "denied", denyFcntl(uint32(slot(args)), uint32(slot(args[1:])))
	}
	commands["kind"] = func(args []string) (any, error) {
		file, err := Open(args[0], os.O_RDWR)
		if err != nil {
			return nil, err
		}
		defer file.Close()
		return uint32(KindFor(file)), nil
	}
	commands["setuid"] = func(args []string) (any, error) { return "changed", syscall.Setuid(slot(args)) }
}

func TestSlotsSurviveChroot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can chroot")
	}
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		claim(t, slots, 0)
		other.want(true, "claim", 1)
		other.do("chroot", t.TempDir())
		other.want(true, "held", 0)
		other.want(true, "others")
		other.want(true, "held", 1)
		if !slots.Held(1) || !slots.OthersHold(all) {
			t.Error("the slot of a process in a chroot is free")
		}
		slots.Release(0)
		// With sibling files it cannot be determined whether the slot is held.
		other.want(kind == SiblingFiles, "held", 0)
		other.want(kind == SiblingFiles, "others")
		if kind == RecordLocks {
			other.want(true, "claim", 0)
			if !slots.Held(0) {
				t.Error("a slot claimed in a chroot is free")
			}
		}
		other.do("release", 1)
		if slots.Held(1) {
			t.Error("a slot released in a chroot is held")
		}
	})
}

func TestSlotsSurviveSetuid(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can become another user")
	}
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t) // in a directory that the other user may not enter
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		claim(t, slots, 0)
		other.want(true, "claim", 1)
		other.do("setuid", nobody)
		other.want(true, "held", 0)
		other.want(true, "others")
		if !slots.Held(1) || !slots.OthersHold(all) {
			t.Error("the slot of a process that has changed its user is free")
		}
		slots.Release(0)
		// With sibling files it cannot be determined whether the slot is held.
		other.want(kind == SiblingFiles, "held", 0)
		other.want(kind == SiblingFiles, "others")
		other.do("release", 1)
		if slots.Held(1) {
			t.Error("a slot released after setuid is held")
		}
	})
}

// A process that may only read the file can take shared record locks on it. It can
// keep others from claiming slots, but it cannot hold one.
func TestSharedRecordLockIsNoHolder(t *testing.T) {
	path := emptyFile(t)
	slots := openSlots(t, path, RecordLocks)
	reader, err := Open(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	lock := unix.Flock_t{Type: unix.F_RDLCK, Start: recordBase, Len: testSlots}
	if err := unix.FcntlFlock(reader.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	if slots.Held(1) || slots.OthersHold(all) {
		t.Error("a shared lock is taken for a holder")
	}
	if ok, err := slots.Claim(1); ok || err != nil {
		t.Errorf("Claim: %v, %v; want false", ok, err)
	}
	lock.Type = unix.F_UNLCK
	if err := unix.FcntlFlock(reader.Fd(), unix.F_OFD_SETLK, &lock); err != nil {
		t.Fatal(err)
	}
	claim(t, slots, 1)
}

func TestClaimNeedsPermissionToWrite(t *testing.T) {
	path := emptyFile(t)
	file, err := Open(path, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	slots, err := NewSlots(file, RecordLocks, testSlots, testID)
	if err != nil {
		t.Fatal(err)
	}
	defer slots.Close()
	_, err = slots.Claim(0)
	wantPathError(t, err, path, syscall.EBADF)
	if slots.Held(0) {
		t.Error("the slot is held after a claim that failed")
	}
}

func TestRecordLocksDoNotConflictWithFileLocks(t *testing.T) {
	path := emptyFile(t)
	slots := openSlots(t, path, RecordLocks)
	claim(t, slots, 0)
	defer lock(t, path).Unlock()
	if slots.OthersHold(all) {
		t.Error("the file lock is taken for a slot lock")
	}
	claim(t, slots, 1)
}

// A mapping keeps the open file description, and with it the locks, after Close.
func TestCloseReleasesInSpiteOfAMapping(t *testing.T) {
	file, path := open4K(t, "/dev/shm")
	defer os.Remove(path)
	memory, err := syscall.Mmap(int(file.Fd()), 0, 4096, syscall.PROT_READ, syscall.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Munmap(memory)
	closed, err := NewSlots(file, RecordLocks, testSlots, testID)
	if err != nil {
		t.Fatal(err)
	}
	claim(t, closed, 3)
	closed.Close()
	if openSlots(t, path, RecordLocks).Held(3) {
		t.Error("the slot is still held")
	}
}

func TestSlotsThatAreClosedCountAsHeld(t *testing.T) {
	path := emptyFile(t)
	slots := openSlots(t, path, RecordLocks)
	slots.Close()
	if !slots.Held(0) || !slots.OthersHold(all) {
		t.Error("a slot that cannot be asked counts as free")
	}
	_, err := slots.Claim(0)
	wantPathError(t, err, path, nil)
}

func TestAllocations(t *testing.T) {
	slots := openSlots(t, emptyFile(t), RecordLocks)
	if n := testing.AllocsPerRun(100, func() {
		slots.Claim(1)
		slots.Held(2)
		slots.OthersHold(all)
		slots.Release(1)
	}); n != 0 {
		t.Errorf("%v allocations for a claim, two questions and a release", n)
	}
}

func TestTagForcesSiblingFiles(t *testing.T) {
	file, _ := open4K(t, t.TempDir())
	want := RecordLocks
	if forceSiblings {
		want = SiblingFiles
	}
	if kind := KindFor(file); kind != want {
		t.Errorf("KindFor = %d, want %d", kind, want)
	}
	// A segment of either kind can be attached all the same.
	eachKind(t, func(t *testing.T, kind Kind) {})
	if slots := openSlots(t, emptyFile(t), RecordLocks); !slots.Atomic() {
		t.Error("record locks are not atomic")
	}
}

// deny makes an fcntl command of the child process fail, as some sandboxes do.
func deny(t *testing.T, c *child, command uint32, errno syscall.Errno) {
	t.Helper()
	if reply := c.try("deny", command, uint32(errno)); reply != "denied" {
		t.Skip("no seccomp here:", reply)
	}
}

func TestSandboxWithoutRecordLocks(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP} {
		path := emptyFile(t)
		c := start(t)
		deny(t, c, unix.F_OFD_GETLK, errno)
		c.want(uint32(SiblingFiles), "kind", path)
		if reply := c.try("slots", path, os.O_RDWR, uint32(RecordLocks)); !strings.Contains(reply, errors.ErrUnsupported.Error()) {
			t.Errorf("%v: slots of another process's kind: %s; want ErrUnsupported", errno, reply)
		}
		c.do("slots", path, os.O_RDWR, uint32(SiblingFiles))
		c.want(true, "claim", 0)
	}
}

func TestClaimReportsErrors(t *testing.T) {
	path := emptyFile(t)
	c := startSlots(t, path, RecordLocks)
	deny(t, c, unix.F_OFD_SETLK, unix.ENOLCK)
	if reply := c.try("claim", 0); !strings.HasPrefix(reply, "error:") || !strings.Contains(reply, path) ||
		!strings.Contains(reply, unix.ENOLCK.Error()) {
		t.Errorf("Claim: %s; want ENOLCK", reply)
	}
	c.want(false, "held", 0)
}

func TestSlotThatCannotBeAskedCountsAsHeld(t *testing.T) {
	c := startSlots(t, emptyFile(t), RecordLocks)
	c.want(false, "held", 0)
	deny(t, c, unix.F_OFD_GETLK, unix.ENOLCK)
	c.want(true, "held", 0)
	c.want(true, "others")
}
