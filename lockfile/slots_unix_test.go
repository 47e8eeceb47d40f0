//go:build unix

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// irregular returns the paths of what is not a regular file.
func irregular(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	file := path("file")
	for _, err := range []error{
		os.WriteFile(file, nil, 0o600),
		os.Symlink(file, path("link")),
		os.Symlink(path("missing"), path("dangling")),
		os.Mkdir(path("dir"), 0o700),
		unix.Mkfifo(path("fifo"), 0o600),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{
		"symbolic link": path("link"), "dangling link": path("dangling"), "directory": path("dir"), "pipe": path("fifo"),
	}
}

// sharedDir returns a directory that every user may read and write.
func sharedDir(t *testing.T, mode fs.FileMode) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "lockfile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	os.Chmod(dir, mode)
	return dir
}

const nobody = 65534

// asNobody starts a child process as a user without privileges. The test binary is
// where only its owner may go, so that user needs a copy.
func asNobody(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can run as another user")
	}
	binary, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	copied := filepath.Join(sharedDir(t, 0o755), "test")
	if err := os.WriteFile(copied, binary, 0o755); err != nil {
		t.Fatal(err)
	}
	return func(cmd *exec.Cmd) {
		cmd.Path, cmd.Args[0] = copied, copied
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
	}
}

func TestOpenDoesNotFollowLinks(t *testing.T) {
	paths := irregular(t)
	for _, name := range []string{"symbolic link", "dangling link"} {
		_, err := Open(paths[name], os.O_RDONLY)
		wantPathError(t, err, paths[name], nil)
	}
	file, err := Open(paths["pipe"], os.O_RDONLY) // does not wait
	if err != nil {
		t.Fatal(err)
	}
	file.Close()
}

func TestOwner(t *testing.T) {
	path := emptyFile(t)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Owner(info), uint32(os.Geteuid()); got != want {
		t.Errorf("Owner = %d, want %d", got, want)
	}
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chown(path, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(path); err != nil || Owner(info) != nobody {
		t.Errorf("Owner = %d, %v; want %d", Owner(info), err, nobody)
	}
}

// A file in a sticky directory can be opened and not removed by other users. It stays
// locked, so that the caller can change it instead.
func TestRemoveThatFailsKeepsTheLock(t *testing.T) {
	other := start(t, asNobody(t))
	path := filepath.Join(sharedDir(t, 0o777|fs.ModeSticky), "test.qshm")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	other.do("lock", path)
	if reply := other.try("remove"); !strings.HasPrefix(reply, "error:") || !strings.Contains(reply, path) {
		t.Fatalf("Remove: %s; want an error that names the file", reply)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("TryLock: %v, want ErrLocked", err)
	}
}

func TestStoppedProcessHoldsItsSlot(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		other.want(true, "claim", 6)
		if err := other.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		var status syscall.WaitStatus
		if _, err := syscall.Wait4(other.cmd.Process.Pid, &status, syscall.WUNTRACED, nil); err != nil || !status.Stopped() {
			t.Fatalf("not stopped: %v, %v", status, err)
		}
		if !slots.Held(6) || !slots.OthersHold(all) {
			t.Error("the slot of a stopped process is free")
		}
	})
}

func TestSlotsAreNotInherited(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, parent := openSlots(t, path, kind), startSlots(t, path, kind)
		parent.want(true, "claim", 6)
		pid, err := strconv.Atoi(parent.do("spawn"))
		if err != nil {
			t.Fatal(err)
		}
		// Only the child reads from the pipe then, and ends with it.
		parent.cmd.Process.Kill()
		parent.cmd.Process.Wait()
		defer parent.stdin.Close()
		eventually(t, "the slot of a dead process is free", func() bool { return !slots.Held(6) && !slots.OthersHold(all) })
		if err := syscall.Kill(pid, 0); err != nil {
			t.Errorf("the child has exited too: %v", err)
		}
	})
}

func TestSlotsSurviveUnlink(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		path := emptyFile(t)
		slots, other := openSlots(t, path, kind), startSlots(t, path, kind)
		other.want(true, "claim", 1)
		claim(t, slots, 0)
		if err := lock(t, path).Remove(); err != nil {
			t.Fatal(err)
		}
		if !slots.Held(1) || !slots.OthersHold(all) {
			t.Error("the slot is free after the segment file was removed")
		}
		other.want(true, "held", 0)
		other.want(true, "claim", 2)
		other.kill()
		eventually(t, "the slots of a dead process are free", func() bool { return !slots.OthersHold(all) })
		claim(t, slots, 1)
	})
}

// moved claims slot 0 in this process and slot 1 in another, and renames the store.
func moved(t *testing.T, kind Kind) (slots *Slots, other *child) {
	dir := filepath.Join(t.TempDir(), "store")
	path := filepath.Join(dir, "test.qshm")
	if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	slots, other = openSlots(t, path, kind), startSlots(t, path, kind)
	other.want(true, "claim", 1)
	claim(t, slots, 0)
	if err := os.Rename(dir, dir+".moved"); err != nil {
		t.Fatal(err)
	}
	return slots, other
}

func TestSlotsSurviveARenamedStore(t *testing.T) {
	eachKind(t, func(t *testing.T, kind Kind) {
		slots, other := moved(t, kind)
		if !slots.Held(1) || !slots.OthersHold(all) || !slots.Held(0) {
			t.Error("a slot is free after the store was renamed")
		}
		other.want(true, "held", 0)
		other.do("release", 1)
		if kind == SiblingFiles {
			// It cannot be determined whether the slot is held.
			if !slots.Held(1) || !slots.OthersHold(all) {
				t.Error("a slot that cannot be asked counts as free")
			}
			return
		}
		if slots.Held(1) || slots.OthersHold(all) {
			t.Error("the slot is held after its release")
		}
		claim(t, slots, 1)
		other.want(false, "claim", 1)
	})
}

func TestAnotherUserCanAsk(t *testing.T) {
	user := asNobody(t)
	eachKind(t, func(t *testing.T, kind Kind) {
		path := filepath.Join(sharedDir(t, 0o777), "test.qshm")
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		slots, other := openSlots(t, path, kind), start(t, user)
		if reply := other.try("slots", path, os.O_RDWR, uint32(kind)); !strings.HasPrefix(reply, "error:") {
			t.Errorf("another user may write the file: %s", reply)
		}
		other.do("slots", path, os.O_RDONLY, uint32(kind))
		claim(t, slots, 0)
		other.want(true, "held", 0)
		other.want(true, "others")
		slots.Release(0)
		other.want(false, "held", 0)
		other.want(false, "others")
	})
}

// The umask must not keep other users from asking, nor from claiming.
func TestSiblingFilesHaveThePermissionsOfTheSegment(t *testing.T) {
	path := emptyFile(t)
	if err := os.Chmod(path, 0o664); err != nil {
		t.Fatal(err)
	}
	slots := openSlots(t, path, SiblingFiles)
	defer syscall.Umask(syscall.Umask(0o077))
	claim(t, slots, 0)
	info, err := os.Stat(slots.siblingPath(0))
	if err != nil || info.Mode() != 0o664 {
		t.Errorf("mode %v, %v; want %v", info.Mode(), err, fs.FileMode(0o664))
	}
	if !openSlots(t, path, SiblingFiles).Held(0) {
		t.Error("the slot is free")
	}
}

func TestSiblingFileThatCannotBeOpenedCountsAsHeld(t *testing.T) {
	user := asNobody(t)
	path := filepath.Join(sharedDir(t, 0o777), "test.qshm")
	if err := os.WriteFile(path, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	slots := openSlots(t, path, SiblingFiles)
	if err := os.WriteFile(slots.siblingPath(2), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	other := start(t, user)
	other.do("slots", path, os.O_RDONLY, uint32(SiblingFiles))
	other.want(true, "held", 2)
	other.want(true, "others")
}

// Anything but a regular file at the path of a sibling file is neither used nor
// removed, and asking does not hang.
func TestSiblingFileThatIsNotRegular(t *testing.T) {
	for name, irregular := range irregular(t) {
		t.Run(name, func(t *testing.T) {
			path := emptyFile(t)
			slots := openSlots(t, path, SiblingFiles)
			sibling := slots.siblingPath(0)
			if err := os.Rename(irregular, sibling); err != nil {
				t.Fatal(err)
			}
			_, err := slots.Claim(0)
			wantPathError(t, err, sibling, ErrNotRegular)
			slots.Held(0)
			slots.RemoveSiblings()
			RemoveOrphans(filepath.Dir(path), []string{filepath.Base(sibling)})
			if _, err := os.Lstat(sibling); err != nil {
				t.Errorf("it was removed: %v", err)
			}
		})
	}
}

func TestSignalStormIsNoError(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-signals:
			default:
				syscall.Kill(os.Getpid(), syscall.SIGUSR1)
			}
		}
	})
	defer wg.Wait()
	defer close(stop)
	path := filepath.Join(t.TempDir(), "test.qshm")
	if err := visit(path, 400); err != nil {
		t.Error(err)
	}
	eachKind(t, func(t *testing.T, kind Kind) {
		slots := openSlots(t, emptyFile(t), kind)
		for range 200 {
			claim(t, slots, 1)
			if !slots.Held(1) || slots.Held(2) || slots.OthersHold(all) {
				t.Fatal("a signal has changed an answer")
			}
			slots.Release(1)
		}
	})
}
