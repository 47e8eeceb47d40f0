//go:build unix

package test

import (
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"qshm/shm"
)

// What other programs and users do to a store: they empty it, close it, put files of
// their own under the names of segments, and reach it by another path.

// If a store is emptied or removed, attached processes keep the memory and the lock,
// and a later call makes a new segment.
func TestStoreIsEmptiedOrRemoved(t *testing.T) {
	for _, loss := range []struct {
		name string
		of   func(t *testing.T, dir string)
	}{
		{"emptied", func(t *testing.T, dir string) {
			entries, err := os.ReadDir(dir)
			must(t, err)
			for _, e := range entries {
				os.Remove(filepath.Join(dir, e.Name()))
			}
		}},
		{"removed", func(t *testing.T, dir string) { os.RemoveAll(dir) }},
		{"replaced", func(t *testing.T, dir string) {
			os.RemoveAll(dir)
			os.Mkdir(dir, 0o700)
		}},
	} {
		t.Run(loss.name, func(t *testing.T) {
			st := newStoreIn(t, filepath.Join(sharedTemp(t), "store"))
			a, b := st.start(), st.start()
			mine, theirs := a.create("k", 64), b.attach("k")
			mine.lock()
			loss.of(t, st.dir)
			if theirs.tryLock() {
				t.Error("TryLock has taken the lock from its owner after the store was " + loss.name)
			}
			mine.poke(0, "kept")
			mine.unlock()
			if got := theirs.read(0, 4); got != "kept" {
				t.Errorf("the other process reads %q, want %q", got, "kept")
			}
			// The key is free. A new segment is another one, also for the processes that
			// are attached to the old one.
			fresh := b.create("k", 32)
			if got := fresh.peek(0, 4); got == "kept" {
				t.Error("the new segment has the memory of the old one")
			}
			third := a.attach("k")
			if third.size() != 32 {
				t.Errorf("Attach finds a segment of %d bytes, want the new one, of 32", third.size())
			}
			wantPIDs(t, st.start().stat("k"), a, b)
			mine.detach()
			theirs.detach()
			wantPIDs(t, a.stat("k"), a, b) // only the old segment is destroyed
			fresh.detach()
			third.detach()
			st.wantFiles()
		})
	}
}

func TestStoreThatMayNotBeWritten(t *testing.T) {
	if os.Geteuid() == 0 {
		t.Skip("root may do everything; TestAnotherUser tests the same")
	}
	st := newStore(t)
	closed := filepath.Join(st.dir, "closed")
	must(t, os.Mkdir(closed, 0o500))
	defer os.Remove(closed)
	_, err := shm.Create("k", 64, shm.Dir(closed))
	wantError(t, err, shm.ErrPermission)
	_, err = shm.Attach("k", shm.Dir(closed))
	wantError(t, err, shm.ErrNotExist)
}

// A foreignFile is what another program can put under the name of a segment.
type foreignFile struct {
	name string
	make func(t *testing.T, path string)
}

var foreignFiles = []foreignFile{
	{"directory", func(t *testing.T, path string) { must(t, os.Mkdir(path, 0o700)) }},
	{"full directory", func(t *testing.T, path string) {
		must(t, os.Mkdir(path, 0o700))
		must(t, os.WriteFile(filepath.Join(path, "x"), nil, 0o600))
	}},
	{"fifo", func(t *testing.T, path string) { must(t, syscall.Mkfifo(path, 0o600)) }},
	{"symlink to a file", func(t *testing.T, path string) {
		target := filepath.Join(t.TempDir(), "target")
		must(t, os.WriteFile(target, []byte("not to be touched"), 0o600))
		must(t, os.Symlink(target, path))
		t.Cleanup(func() {
			if b, err := os.ReadFile(target); err != nil || string(b) != "not to be touched" {
				t.Errorf("the target of the link contains %q, %v, want it unchanged", b, err)
			}
		})
	}},
	{"symlink to an empty file", func(t *testing.T, path string) {
		target := filepath.Join(t.TempDir(), "target")
		must(t, os.WriteFile(target, nil, 0o600))
		must(t, os.Symlink(target, path))
		t.Cleanup(func() {
			if info, err := os.Stat(target); err != nil || info.Size() != 0 {
				t.Errorf("the target of the link: %v, %v, want it unchanged", info, err)
			}
		})
	}},
	{"symlink to nothing", func(t *testing.T, path string) { must(t, os.Symlink(path+"-nothing", path)) }},
	{"symlink to itself", func(t *testing.T, path string) { must(t, os.Symlink(path, path)) }},
	{"text", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("a user's notes"), 0o600)) }},
	{"one byte", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte{0}, 0o600)) }},
	{"many zeros", func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, 4097), 0o600)) }},
	{"large text", func(t *testing.T, path string) {
		must(t, os.WriteFile(path, []byte(strings.Repeat("a user's notes", 1000)), 0o600))
	}},
	{"file of a newer format", func(t *testing.T, path string) { writeFormat(t, path, 99) }},
	{"file of format 1", func(t *testing.T, path string) { writeFormat(t, path, 1) }},
}

// No call changes, follows, waits for or removes a file that is not a segment.
func TestForeignFilesUnderSegmentNamesAreLeftAlone(t *testing.T) {
	for _, file := range foreignFiles {
		t.Run(strings.ReplaceAll(file.name, " ", "-"), func(t *testing.T) {
			st := &store{t, sharedTemp(t)} // not newStore: the file stays
			file.make(t, st.path("k"))
			before, err := os.Lstat(st.path("k"))
			must(t, err)
			p := st.start()
			for name, call := range map[string]func() error{
				"create": func() error { _, err := p.tryCreate("k", 64); return err },
				"attach": func() error { _, err := p.tryAttach("k"); return err },
				"open":   func() error { _, _, err := p.tryOpen("k", 64); return err },
				"stat":   func() error { _, err := p.tryStat("k"); return err },
				"remove": func() error { return p.tryRemove("k") },
			} {
				if err := call(); err == nil {
					t.Errorf("%s succeeds, want %v", name, shm.ErrCorrupt)
				} else if remote := err.(*remoteError); !remote.Own || remote.Op != name || string(remote.Key) != "k" {
					t.Errorf("%s: %v, want an *shm.Error of this call and key", name, err)
				} else {
					wantError(t, err, shm.ErrCorrupt)
				}
			}
			if n := len(p.sweep()); n != 0 {
				t.Errorf("Sweep reports %d segments, want 0", n)
			}
			if n := len(p.list()); n != 0 {
				t.Errorf("List reports %d segments, want 0", n)
			}
			p.create("other", 64).detach() // other keys work
			after, err := os.Lstat(st.path("k"))
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
				t.Errorf("the file was %v and is %v, %v, want it unchanged", before, after, err)
			}
		})
	}
}

// writeFormat writes a file that begins like a segment of another format.
func writeFormat(t *testing.T, path string, format uint32) {
	t.Helper()
	b := make([]byte, 8192)
	copy(b, "\x00qshm\r\n\x1a")
	binary.NativeEndian.PutUint32(b[8:], 0x01020304)
	binary.NativeEndian.PutUint32(b[12:], format)
	must(t, os.WriteFile(path, b, 0o600))
}

func TestTimesOfFilesDoNotMatter(t *testing.T) {
	for name, when := range map[string]time.Time{"past": time.Unix(1, 0), "future": time.Now().AddDate(50, 0, 0)} {
		t.Run(name, func(t *testing.T) {
			st := newStore(t)
			a, b := st.start(), st.start()
			mine, theirs := a.create("k", 64), b.attach("k")
			for _, file := range st.files() {
				must(t, os.Chtimes(filepath.Join(st.dir, file), when, when))
			}
			b.sweep()
			wantPIDs(t, b.stat("k"), a, b)
			theirs.lock()
			theirs.unlock()
			mine.detach()
			theirs.detach()
			st.wantFiles()
		})
	}
}

// Another user can attach, and delay others, only as far as the permissions allow.
func TestAnotherUser(t *testing.T) {
	start := anotherUser(t)
	dir, err := os.MkdirTemp("/tmp", "qshm-test-") // a directory that the other user can reach
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	t.Run("a store of mode 0700", func(t *testing.T) {
		st := newStoreIn(t, filepath.Join(dir, "closed"))
		a := st.start()
		a.create("k", 64)
		b := start(st)
		_, err := b.tryAttach("k")
		wantError(t, err, shm.ErrPermission)
		_, err = b.tryCreate("other", 64)
		wantError(t, err, shm.ErrPermission)
		_, err = b.tryStat("k")
		wantError(t, err, shm.ErrPermission)
	})
	t.Run("a segment whose creator has not set its permissions yet", func(t *testing.T) {
		st := newStoreIn(t, filepath.Join(dir, "opening"))
		must(t, os.Mkdir(st.dir, 0o700))
		must(t, os.Chmod(st.dir, 0o1777))
		b := start(st)
		// The creator has not set the permissions yet, and then gives up.
		must(t, os.WriteFile(st.path("k"), nil, 0o600))
		call := b.begin(request{Op: "open", Key: key("k"), N: 64})
		time.Sleep(50 * time.Millisecond) // until Open has found the file, most often
		must(t, os.Remove(st.path("k")))
		call.must()
		b.exit()
		// The file disappears at some step of Attach.
		c := start(st)
		stop, stopped := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(stopped)
			for path := st.path("going"); ; {
				if os.WriteFile(path, nil, 0o600) != nil || os.Remove(path) != nil {
					t.Error("the file cannot be made or removed")
					return
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		}()
		for range 300 {
			_, err := c.tryAttach("going")
			if wantError(t, err, shm.ErrNotExist); t.Failed() {
				break
			}
		}
		close(stop)
		<-stopped
		// The creator has died before it set the permissions.
		must(t, os.WriteFile(st.path("dead"), nil, 0o600))
		_, err := start(st).tryAttach("dead")
		wantError(t, err, shm.ErrPermission)
	})
	t.Run("a private segment in a public store", func(t *testing.T) {
		st := newStoreIn(t, filepath.Join(dir, "open"))
		must(t, os.Mkdir(st.dir, 0o700))
		must(t, os.Chmod(st.dir, 0o1777))
		a := st.start()
		mine := a.create("k", 64)
		b := start(st)
		_, err := b.tryAttach("k")
		wantError(t, err, shm.ErrPermission)
		_, err = b.tryCreate("k", 64)
		wantError(t, err, shm.ErrPermission)
		wantError(t, b.tryRemove("k"), shm.ErrPermission)
		b.sweep()
		if list := b.list(); len(list) != 1 || list[0].Status != shm.StatusUnknown {
			t.Errorf("List: %+v, want one segment of unknown status", list)
		}
		theirs := b.create("theirs", 64) // the other user's own segments work
		wantPIDs(t, a.stat("theirs"), b)
		theirs.detach()
		wantPIDs(t, a.stat("k"), a)
		mine.detach()
	})
	t.Run("a segment that all users may write", func(t *testing.T) {
		st := newStoreIn(t, filepath.Join(dir, "shared"))
		must(t, os.Mkdir(st.dir, 0o700))
		must(t, os.Chmod(st.dir, 0o777))
		a := st.start()
		mine := a.create("k", 64, opts{Perm: 0o666})
		b := start(st)
		theirs := b.attach("k")
		wantPIDs(t, a.stat("k"), a, b)
		wantPIDs(t, b.stat("k"), a, b)
		theirs.lock()
		b.kill()
		mine.lock()
		if !mine.abandoned() {
			t.Error("Abandoned is false after the death of the other user's process, want true")
		}
		wantPIDs(t, a.stat("k"), a)
		c := start(st)
		theirs = c.attach("k")
		mine.detach() // the other user's process detaches last
		theirs.detach()
		st.wantFilesAfterSweep()
	})
}

func TestStoreUnderTwoPathsIsOneStore(t *testing.T) {
	st := newStore(t)
	alias := filepath.Join(t.TempDir(), "alias")
	must(t, os.Symlink(filepath.Dir(st.dir), alias))
	other := filepath.Join(alias, filepath.Base(st.dir))
	a, err := shm.Create("k", 64, shm.Dir(st.dir))
	must(t, err)
	b, err := shm.Attach("k", shm.Dir(other))
	must(t, err)
	must(t, a.Lock())
	if ok, _ := b.TryLock(); ok {
		t.Error("attachments by two paths both have the lock")
	}
	shared := 0 // guarded by the lock: the race detector must know
	done := make(chan error)
	go func() {
		err := b.Lock()
		shared++
		done <- errors.Join(err, b.Unlock())
	}()
	shared++
	must(t, a.Unlock())
	must(t, <-done)
	must(t, a.Detach())
	st.wantFiles("k")
	must(t, b.Detach())
}

// anotherUser returns a function that starts processes of another user. Without the
// permission to do so, it skips the test.
func anotherUser(t *testing.T) func(*store) *proc {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root may start processes of another user")
	}
	setpriv, err := exec.LookPath("setpriv")
	if err != nil {
		t.Skip("setpriv is not installed")
	}
	// The other user must be able to execute the test binary.
	dir, err := os.MkdirTemp("", "qshm-test-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	binary, err := os.ReadFile(self(t))
	must(t, err)
	path := filepath.Join(dir, "test")
	must(t, os.WriteFile(path, binary, 0o755))
	return func(st *store) *proc {
		return st.startAs([]string{setpriv, "--reuid=65534", "--regid=65534", "--clear-groups"}, []string{envSelf + "=" + path})
	}
}
