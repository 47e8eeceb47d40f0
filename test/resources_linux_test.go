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

// mountStore mounts a file system in memory for a store of the test.
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

func TestCreateInAFullStoreLeavesNothing(t *testing.T) {
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
				t.Errorf("Create: %v, want an error that says how much is free", err)
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
		t.Errorf("%d calls of Create succeeded and %d failed, want some of each", made, refused)
	}
	// Many small segments, until the store is full.
	os.Remove(ballast)
	for n := 0; ; n++ {
		if _, err := p.tryCreate(strings.Repeat("k", n+1), 1); err != nil {
			wantError(t, err, shm.ErrNoSpace)
			if len(p.list()) != n || n == 0 {
				t.Errorf("List reports %d segments of %d, want all, and one at least", len(p.list()), n)
			}
			break
		}
	}
	p.do(request{Op: "closeall"})
	st.wantFiles()
}

// The file system has free pages and no free inode.
func TestCreateWithoutAFreeInodeIsNoSpace(t *testing.T) {
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
		t.Errorf("%d calls of Create succeeded on a file system of 6 inodes", made)
	}
	p.do(request{Op: "closeall"})
	st.wantFiles()
}

// One process may write the store, another has it mounted read-only: the second may look,
// and nothing else.
func TestStoreMountedReadOnly(t *testing.T) {
	dir := mountStore(t, "size=1m")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	p := st.start()
	p.create("k", 64)
	readOnly := t.TempDir()
	must(t, syscall.Mount(st.dir, readOnly, "", syscall.MS_BIND, ""))
	t.Cleanup(func() { must(t, syscall.Unmount(readOnly, syscall.MNT_DETACH)) })
	must(t, syscall.Mount("", readOnly, "", syscall.MS_BIND|syscall.MS_REMOUNT|syscall.MS_RDONLY, ""))

	q := st.startAs(nil, []string{keymap.EnvDir + "=" + readOnly})
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
	// descriptors makes the call that Data names with no free descriptor, then with one, and
	// so on until it succeeds, and returns how many it needs. Each failure must be
	// ErrNoSpace, and no descriptor may be lost.
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
					return fmt.Errorf("the call has lost %d of %d free descriptors", free-lost, free)
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

func TestCallsWithoutADescriptorAreNoSpace(t *testing.T) {
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
					t.Errorf("%d attached after calls that failed and one that succeeded", n)
				}
			}
		})
	}
}

func TestAttachingAndDetachingKeepsNoDescriptorAndNoMapping(t *testing.T) {
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
		t.Errorf("%d descriptors and %d mappings, and %d and %d some hundred attachments later", d0, m0, d1, m1)
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

// What the memory cgroup of a process does not allow is an error, and does not kill the
// process.
func TestCgroupLimitIsNoSpace(t *testing.T) {
	needRoot(t)
	group := memoryCgroup(t, 64<<20)
	st := newStore(t)
	p := st.start()
	must(t, os.WriteFile(filepath.Join(group, "cgroup.procs"), []byte(strconv.Itoa(p.pid)), 0))
	_, err := p.tryCreate("k", 1<<30)
	wantError(t, err, shm.ErrNoSpace)
	s := p.create("k", 8<<20)
	_, err = s.try(request{Op: "grow", N: 1 << 30})
	wantError(t, err, shm.ErrNoSpace)
	s.write(8<<20-1, "x")
	s.detach()
}

// memoryCgroup makes a cgroup with a memory limit, and returns its directory.
func memoryCgroup(t *testing.T, limit int) string {
	t.Helper()
	for _, hierarchy := range []struct{ root, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(hierarchy.root, ownMemoryCgroup(), fmt.Sprint("qshm-test-", os.Getpid()))
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { os.Remove(dir) })
		if os.WriteFile(filepath.Join(dir, hierarchy.limit), []byte(strconv.Itoa(limit)), 0) == nil {
			return dir
		}
	}
	t.Skip("no memory cgroup can be made here")
	return ""
}

// ownMemoryCgroup returns the path of the memory cgroup of this process.
func ownMemoryCgroup() string {
	text, _ := os.ReadFile("/proc/self/cgroup")
	for line := range strings.Lines(string(text)) {
		if _, rest, ok := strings.Cut(strings.TrimSpace(line), ":memory:"); ok {
			return rest
		}
	}
	return ""
}

func TestGrowThatFindsNoSpaceChangesNothing(t *testing.T) {
	dir := mountStore(t, "size=1m")
	st := newStoreIn(t, filepath.Join(dir, "store"))
	a, b := st.start(), st.start()
	s, other := a.create("k", 4096), b.attach("k")
	s.write(0, "kept")
	_, err := s.try(request{Op: "grow", N: 2 << 20})
	wantError(t, err, shm.ErrNoSpace)
	if got := other.read(0, 4); s.size() != 4096 || other.size() != 4096 || got != "kept" {
		t.Errorf("sizes %d and %d, text %q, want 4096 and %q", s.size(), other.size(), got, "kept")
	}
	s.grow(512 << 10) // there is room for that
	if other.size() != 512<<10 {
		t.Errorf("size %d, want %d", other.size(), 512<<10)
	}
}
