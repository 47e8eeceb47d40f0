//go:build unix

package test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"qshm/shm"
)

// What other programs and users do to a store: they empty it, close it, and put other
// things under the names of segments.

// If a store is emptied or removed, attached processes keep the memory and the lock,
// and a later call makes a new segment.
func TestStoreIsEmptiedOrRemoved(t *testing.T) {
	for _, loss := range []struct {
		name string
		of   func(t *testing.T, dir string)
	}{
		{"emptied", func(t *testing.T, dir string) {
			entries, err := os.ReadDir(dir)
			if err != nil {
				t.Fatal(err)
			}
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
				t.Error("two attachments hold the lock")
			}
			mine.poke(0, "kept")
			mine.unlock()
			if got := theirs.read(0, 4); got != "kept" {
				t.Errorf("read %q", got)
			}
			// The key is free. A new segment is another one, also for the processes that
			// are attached to the old one.
			fresh := b.create("k", 32)
			if got := fresh.peek(0, 4); got == "kept" {
				t.Error("the new segment is the old one")
			}
			third := a.attach("k")
			if third.size() != 32 {
				t.Errorf("size %d, want 32", third.size())
			}
			wantPIDs(t, st.start().stat("k"), a, b)
			mine.detach()
			theirs.detach()
			wantPIDs(t, a.stat("k"), a, b) // the old segment is destroyed, and not the new one
			fresh.detach()
			third.detach()
			st.wantFiles()
		})
	}
}

func needNoRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("root may do everything; TestAnotherUser tests the same")
	}
}

func TestStoreThatMayNotBeWritten(t *testing.T) {
	needNoRoot(t)
	st := newStore(t)
	closed := filepath.Join(st.dir, "closed")
	if err := os.Mkdir(closed, 0o500); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(closed)
	_, err := shm.Create("k", 64, shm.Dir(closed))
	wantError(t, err, shm.ErrPermission)
	_, err = shm.Attach("k", shm.Dir(closed))
	wantError(t, err, shm.ErrNotExist)
}

// A file that is not a segment is never changed, followed, waited for or removed, even
// under the name of a segment.
func TestForeignFilesUnderSegmentNames(t *testing.T) {
	for _, thing := range []struct {
		name string
		make func(t *testing.T, path string)
	}{
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
					t.Errorf("the target of the link: %q, %v", b, err)
				}
			})
		}},
		{"symlink to an empty file", func(t *testing.T, path string) {
			target := filepath.Join(t.TempDir(), "target")
			must(t, os.WriteFile(target, nil, 0o600))
			must(t, os.Symlink(target, path))
			t.Cleanup(func() {
				if info, err := os.Stat(target); err != nil || info.Size() != 0 {
					t.Errorf("the target of the link: %v, %v", info, err)
				}
			})
		}},
		{"symlink to nothing", func(t *testing.T, path string) { must(t, os.Symlink(path+"-nothing", path)) }},
		{"symlink to itself", func(t *testing.T, path string) { must(t, os.Symlink(path, path)) }},
		{"device", func(t *testing.T, path string) {
			if err := mknod(path); err != nil {
				t.Skipf("no permission to make device nodes: %v", err)
			}
		}},
		{"text", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte("a user's notes"), 0o600)) }},
		{"one byte", func(t *testing.T, path string) { must(t, os.WriteFile(path, []byte{0}, 0o600)) }},
		{"many zeros", func(t *testing.T, path string) { must(t, os.WriteFile(path, make([]byte, 4097), 0o600)) }},
		{"large text", func(t *testing.T, path string) {
			must(t, os.WriteFile(path, []byte(strings.Repeat("a user's notes", 1000)), 0o600))
		}},
		{"file of a newer format", func(t *testing.T, path string) { writeFormat(t, path, 99) }},
		{"file of format 1", func(t *testing.T, path string) { writeFormat(t, path, 1) }},
	} {
		t.Run(strings.ReplaceAll(thing.name, " ", "-"), func(t *testing.T) {
			st := &store{t, sharedTemp(t)} // not newStore: the file stays
			thing.make(t, st.path("k"))
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
					t.Errorf("%s succeeds", name)
				} else if remote := err.(*remoteError); !remote.Own || remote.Op != name || string(remote.Key) != "k" {
					t.Errorf("%s: %v", name, err)
				} else {
					wantError(t, err, shm.ErrCorrupt)
				}
			}
			if n := len(p.sweep()); n != 0 {
				t.Errorf("%d swept", n)
			}
			if n := len(p.list()); n != 0 {
				t.Errorf("%d listed", n)
			}
			p.create("other", 64).detach() // other keys are not concerned
			after, err := os.Lstat(st.path("k"))
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() || !before.ModTime().Equal(after.ModTime()) {
				t.Errorf("the file was changed: %v, %v", after, err)
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

// Nothing depends on the time of day.
func TestFilesFromAnotherTime(t *testing.T) {
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
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("/tmp", "qshm-test-") // which the other user can reach
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o755))
	binary := filepath.Join(dir, "test")
	must(t, copyFile(self(t), binary))
	start := func(st *store) *proc {
		return st.startAs([]string{"setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"}, []string{envSelf + "=" + binary})
	}
	if _, err := os.Stat("/usr/bin/setpriv"); err != nil {
		t.Skip("setpriv is not installed")
	}

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
		// The creator has not changed the permissions yet, and then gives up.
		must(t, os.WriteFile(st.path("k"), nil, 0o600))
		call := b.begin(request{Op: "open", Key: key("k"), N: 64})
		time.Sleep(50 * time.Millisecond) // until Open has found the file, most often
		must(t, os.Remove(st.path("k")))
		call.must()
		b.exit()
		// The file may disappear between two looks of a process.
		c := start(st)
		over, coming := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(coming)
			for path := st.path("going"); ; {
				if os.WriteFile(path, nil, 0o600) != nil || os.Remove(path) != nil {
					t.Error("the file cannot be made or removed")
					return
				}
				select {
				case <-over:
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
		close(over)
		<-coming
		// The creator has died there.
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
			t.Errorf("listed: %+v", list)
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
			t.Error("Abandoned is false after the death of the other user's process")
		}
		wantPIDs(t, a.stat("k"), a)
		c := start(st)
		theirs = c.attach("k")
		mine.detach() // the other user's process is the last
		theirs.detach()
		st.wantFilesAfterSweep()
	})
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}
