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

	"qshm/keymap"
	"qshm/shm"
)

// What happens when memory, files, descriptors or permissions are missing.

// mountStore makes a store on a file system of its own.
func mountStore(t *testing.T, options string) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skipf("no permission to mount: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, syscall.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// A Create either has all its memory, or fails and leaves nothing.
func TestFullStore(t *testing.T) {
	dir := mountStore(t, "size=256k")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	p := st.start()
	ballast := filepath.Join(dir, "ballast")
	made, refused := 0, 0
	for pages := range 65 {
		must(t, os.WriteFile(ballast, make([]byte, 4096*(64-pages)), 0o600))
		s, err := p.tryCreate("k", 16384)
		if err != nil {
			refused++
			wantError(t, err, shm.ErrNoSpace)
			if pages > 0 && !strings.Contains(err.Error(), "free") {
				t.Errorf("the error does not say how much is free: %v", err)
			}
			st.wantFiles()
			continue
		}
		made++
		s.poke(0, strings.Repeat("x", 16384)) // no SIGBUS
		s.detach()
		st.wantFiles()
	}
	if made == 0 || refused == 0 {
		t.Errorf("made %d, refused %d: the store was never full, or always", made, refused)
	}
	// Many small segments, until the store is full.
	os.Remove(ballast)
	for n := 0; ; n++ {
		if _, err := p.tryCreate(strings.Repeat("k", n+1), 1); err != nil {
			wantError(t, err, shm.ErrNoSpace)
			if len(p.list()) != n || n == 0 {
				t.Errorf("%d made, %d listed", n, len(p.list()))
			}
			break
		}
	}
	p.do(request{Op: "closeall"})
	st.wantFiles()
}

// The file system has room for pages, and none for files.
func TestStoreOutOfFiles(t *testing.T) {
	dir := mountStore(t, "size=4m,nr_inodes=6")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	p := st.start()
	made := 0
	for ; made < 10; made++ {
		if _, err := p.tryCreate(strings.Repeat("k", made+1), 1); err != nil {
			wantError(t, err, shm.ErrNoSpace)
			break
		}
	}
	if made == 0 || made == 10 {
		t.Errorf("%d made", made)
	}
	p.do(request{Op: "closeall"})
	st.wantFiles()
}

// One process may write the store, another has it mounted read-only.
func TestReadOnlyStore(t *testing.T) {
	dir := mountStore(t, "size=1m")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	p := st.start()
	p.create("k", 64)
	closed := t.TempDir()
	must(t, syscall.Mount(st.dir, closed, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { must(t, syscall.Unmount(closed, syscall.MNT_DETACH)) })
	must(t, syscall.Mount("", closed, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

	q := st.startAs(nil, []string{keymap.EnvDir + "=" + closed})
	_, err := q.tryCreate("other", 64)
	wantError(t, err, shm.ErrPermission)
	_, err = q.tryAttach("k")
	wantError(t, err, shm.ErrPermission)
	wantError(t, q.tryRemove("k"), shm.ErrPermission)
	wantPIDs(t, q.stat("k"), p)
	if q.sweep(); len(q.list()) != 1 {
		t.Error("List does not show the segment")
	}
	p.kill()
	if info := q.stat("k"); info.Status != shm.StatusDead {
		t.Errorf("status %v, want dead", info.Status)
	}
	_, err = q.tryCreate("k", 64)
	wantError(t, err, shm.ErrPermission)
}

func init() {
	// descriptors makes the call that Data names with no free descriptor, then with one,
	// and so on until it succeeds. Each failure must be ErrNoSpace, and no descriptor may
	// be lost.
	extra["descriptors"] = func(c *child, _ context.Context, r request, a *answer) error {
		// With the first file, the Go runtime needs a descriptor, and ends the process if
		// there is none.
		if r, w, err := os.Pipe(); err == nil {
			r.Close()
			w.Close()
		}
		var old syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &old); err != nil {
			return err
		}
		limit := old
		limit.Cur = 100
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
			return err
		}
		defer syscall.Setrlimit(syscall.RLIMIT_NOFILE, &old)
		var all []int
		defer func() {
			for _, fd := range all {
				syscall.Close(fd)
			}
		}()
		for {
			fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			all = append(all, fd)
		}
		for free := 0; len(all) > 0; free++ {
			err := c.call(context.Background(), request{Op: string(r.Data), Key: r.Key, N: r.N}, a)
			if err == nil {
				a.N = free
				return nil
			}
			if !errors.Is(err, shm.ErrNoSpace) {
				return err
			}
			// As many descriptors must be free as before.
			for lost := range free {
				fd, err := syscall.Open(os.DevNull, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
				if err != nil {
					return fmt.Errorf("of %d descriptors %d are lost", free, free-lost)
				}
				all = append(all, fd)
			}
			for range free + 1 {
				syscall.Close(all[len(all)-1])
				all = all[:len(all)-1]
			}
		}
		return errors.New("the call fails with any number of descriptors")
	}
}

func TestOutOfDescriptors(t *testing.T) {
	for _, op := range []string{"create", "attach", "open", "stat", "list", "sweep", "remove"} {
		t.Run(op, func(t *testing.T) {
			st := newStore(t)
			p, q := st.start(), st.start()
			if op != "create" {
				p.create("k", 64)
			}
			a := q.do(request{Op: "descriptors", Data: []byte(op), Key: key("k"), N: 64})
			t.Logf("%s needs %d descriptors", op, a.N)
			if a.N == 0 {
				t.Error("the call needs no descriptor")
			}
			if op == "create" || op == "attach" || op == "open" {
				info := q.stat("k")
				if n := len(pids(info)); n != 1 && op == "create" || n != 2 && op != "create" {
					t.Errorf("%d attached after some failures", n)
				}
			}
		})
	}
}

// Attaching and detaching leaves no descriptor and no mapping behind.
func TestNothingIsLeaked(t *testing.T) {
	st := newStore(t)
	p := st.start()
	st.start().create("k", 64)
	use := func() (descriptors, mappings int) {
		p.do(request{Op: "lifetimes", Key: key("k"), N: 200})
		p.do(request{Op: "creations", Key: key("k"), N: 200})
		for range 3 {
			p.do(request{Op: "gc"}) // the garbage collector unmaps replaced headers
		}
		return inUse(t, p.pid)
	}
	use()
	d0, m0 := use()
	for range 3 {
		use()
	}
	d1, m1 := use()
	if d1 > d0 || m1 > m0+50 {
		t.Errorf("descriptors: %d, then %d; mappings: %d, then %d", d0, d1, m0, m1)
	}
}

func inUse(t *testing.T, pid int) (descriptors, mappings int) {
	t.Helper()
	proc := filepath.Join("/proc", strconv.Itoa(pid))
	fds, err := os.ReadDir(filepath.Join(proc, "fd"))
	must(t, err)
	maps, err := os.ReadFile(filepath.Join(proc, "maps"))
	must(t, err)
	return len(fds), strings.Count(string(maps), "\n")
}
