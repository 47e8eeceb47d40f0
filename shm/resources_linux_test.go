package shm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"qshm/keymap"
	"qshm/lockfile"
)

func init() {
	roles["descriptors"] = descriptorsRole
	roles["lock many"] = lockManyRole
}

// smallStore makes a store on a memory file system of its own that has size bytes.
func smallStore(t *testing.T, size int) string {
	t.Helper()
	return mountedStore(t, fmt.Sprintf("size=%d,mode=700", size))
}

func mountedStore(t *testing.T, options string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("only root can mount a small file system")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, options); err != nil {
		t.Skip("cannot mount a small file system:", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
			unix.Unmount(dir, unix.MNT_DETACH)
		}
	})
	return dir
}

func TestFullStoreIsAnErrorAtCreate(t *testing.T) {
	dir := smallStore(t, 1<<20)
	for _, size := range []int{1<<20 - minHeader + 1, 4 << 20, 100 << 20} {
		_, err := Create(key, size, Dir(dir))
		wantError(t, err, "create", key, ErrNoSpace)
		asked := max(minHeader, mapAlign()) + size
		for _, figure := range []string{fmt.Sprint(asked, " bytes"), fmt.Sprint(" of ", 1<<20, " are free"), dir} {
			if !strings.Contains(err.Error(), figure) {
				t.Errorf("%v: does not say %q", err, figure)
			}
		}
		wantFiles(t, dir)
	}
}

// Memory that was not allocated at creation may not be there when it is needed. That is
// an error too, and the memory that is there can still be used.
func TestFullStoreIsAnErrorOnSparseMemory(t *testing.T) {
	store(t)
	needAddresses(t)
	seg := create(t, key, 4<<20, Sparse(), Dir(smallStore(t, 1<<20)))
	fill := func(data []byte) error {
		for i := range data {
			data[i] = 1
		}
		return nil
	}
	wantError(t, seg.Update(fill), "update", key, ErrNoSpace)
	_, err := seg.WriteAt(make([]byte, 4<<20), 0)
	wantError(t, err, "write", key, ErrNoSpace)
	if _, err := seg.WriteAt([]byte("room"), 0); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 4)
	if n, _, err := seg.Snapshot(buf); err != nil || string(buf[:n]) != "room" {
		t.Errorf("%q, %v", buf[:n], err)
	}
	// Reading what was never written takes room too.
	wantError(t, seg.View(fill), "view", key, ErrNoSpace)
	_, err = seg.ReadAt(buf, 4<<20-4)
	wantError(t, err, "read", key, ErrNoSpace)
	if err := Remove(key, Dir(filepath.Dir(seg.m.path))); err != nil {
		t.Fatal(err)
	}
	wantError(t, seg.Update(fill), "update", key, ErrNoSpace)
	detach(t, seg)
}

// The slots are in the header, which is always allocated: a process that attaches when
// the store is full finds them.
func TestFullStoreHasTheSlotsOfASparseSegment(t *testing.T) {
	dir := smallStore(t, 1<<20)
	const attachments = 1000
	seg := create(t, key, 1<<19, Sparse(), MaxAttachments(attachments), Dir(dir))
	fillUp(t, dir)
	for range attachments - 1 {
		attach(t, key, Dir(dir))
	}
	if info, err := seg.Info(); info.Attached != attachments || err != nil {
		t.Errorf("%d attached, %v", info.Attached, err)
	}
}

// fillUp fills a store up.
func fillUp(t *testing.T, dir string) {
	t.Helper()
	f := must(os.Create(filepath.Join(dir, "other")))(t)
	defer f.Close()
	for err := error(nil); err == nil; {
		_, err = f.Write(make([]byte, 4096))
	}
}

func TestFullStoreSaysHowMuchIsFree(t *testing.T) {
	dir := smallStore(t, 1<<20)
	if err := os.WriteFile(filepath.Join(dir, "other"), make([]byte, 1<<19), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := Create(key, 1<<20, Dir(dir))
	wantError(t, err, "create", key, ErrNoSpace)
	match := regexp.MustCompile(`(\d+) of (\d+) are free`).FindStringSubmatch(fmt.Sprint(err))
	if match == nil {
		t.Fatalf("%v: does not say how much is free", err)
	}
	if free, _ := strconv.Atoi(match[1]); free > 1<<19 || free < 1<<19-2*minHeader {
		t.Errorf("%v: want about %d bytes free", err, 1<<19)
	}
}

// A store can be full of files too. Create must still find the file under the key:
// garbage makes room, and a segment in use is reported.
func TestCreateInAStoreFullOfFiles(t *testing.T) {
	dir := mountedStore(t, "size=1m,nr_inodes=10,mode=700")
	t.Setenv(keymap.EnvDir, dir)
	fill := func() {
		for i := 0; ; i++ {
			f, err := os.OpenFile(filepath.Join(dir, fmt.Sprint("other", i)), os.O_CREATE, 0o600)
			if err != nil {
				break
			}
			f.Close()
		}
	}
	runThenKill(t, "create and die", key)
	fill()
	creates.Store(1) // so that this Create does not sweep
	seg := create(t, key, 1)
	fill()
	if out, err := command("create and die", key).Output(); !strings.Contains(string(out), "already exists") {
		t.Errorf("create of a segment in use: %q, %v, want that it exists", out, err)
	}
	detach(t, seg)
}

func TestStoreThatJustSuffices(t *testing.T) {
	dir := smallStore(t, 1<<20)
	size := 1<<20 - max(minHeader, mapAlign())
	seg := create(t, key, size, Dir(dir))
	for i := range seg.Data() {
		seg.Data()[i] = 1
	}
	detach(t, seg)
	wantFiles(t, dir)
}

func TestGrowInAFullStoreChangesNothing(t *testing.T) {
	dir := smallStore(t, 1<<20)
	seg := create(t, key, 1000, Dir(dir))
	reader := attach(t, key, ReadOnly(), Dir(dir))
	for _, size := range []int{1 << 20, 2 << 20, 100 << 20} {
		wantError(t, seg.Grow(size), "grow", key, ErrNoSpace)
		if info := must(os.Stat(seg.m.path))(t); info.Size() != int64(seg.m.dataOff)+1000 || seg.Size() != 1000 || reader.Size() != 1000 {
			t.Errorf("the file has %d bytes, the segment %d and %d, want as before", info.Size(), seg.Size(), reader.Size())
		}
	}
	if err := seg.Grow(1 << 19); err != nil || seg.Size() != 1<<19 || reader.Size() != 1<<19 {
		t.Errorf("%v, sizes %d and %d, want %d", err, seg.Size(), reader.Size(), 1<<19)
	}
}

// Memory that Grow adds is allocated, also to a Sparse segment.
func TestGrowAllocates(t *testing.T) {
	dir := smallStore(t, 1<<20)
	seg := create(t, key, 1000, Sparse(), Dir(dir))
	if err := seg.Grow(1 << 19); err != nil {
		t.Fatal(err)
	}
	fillUp(t, dir)
	for i := range seg.Data()[1000:] {
		seg.Data()[1000+i] = 1
	}
}

func TestFullStoreLetsAttachAndDetach(t *testing.T) {
	dir := smallStore(t, 1<<20)
	create(t, key, 1<<19, Dir(dir))
	fillUp(t, dir)
	attach(t, key, Dir(dir))
}

// descriptorsRole creates a segment with as few descriptors left as arg says.
func descriptorsRole(arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	seg, err := Create("here", 1)
	if err != nil {
		return err
	}
	var held []*os.File // all descriptors but n
	limit := unix.Rlimit{Cur: 64, Max: 64}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return err
	}
	for {
		f, err := os.Open(os.DevNull)
		if err != nil {
			break
		}
		held = append(held, f)
	}
	for range n {
		held[len(held)-1].Close()
		held = held[:len(held)-1]
	}
	_, err = Create(key, 1)
	if n == 0 || err != nil {
		if !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("create: %w", err)
		}
	}
	for _, f := range held {
		f.Close()
	}
	if err := seg.Detach(); err != nil {
		return err
	}
	fmt.Println("ok", err)
	return nil
}

func TestNoMoreDescriptorsIsErrNoSpace(t *testing.T) {
	for n := range 5 {
		dir := store(t)
		out, err := command("descriptors", fmt.Sprint(n)).Output()
		if err != nil || !strings.HasPrefix(string(out), "ok") {
			t.Errorf("%d descriptors left: %s, %v", n, out, err)
		}
		must(Sweep())(t)
		wantFiles(t, dir)
	}
}

// A process keeps one descriptor for each segment, whatever the number of attachments.
func TestProcessHasOneDescriptorForEachSegment(t *testing.T) {
	store(t)
	if lockKind(t) != lockfile.RecordLocks {
		t.Skip("each attachment has a file of its own here")
	}
	before, _, err := inUse()
	if err != nil {
		t.Fatal(err)
	}
	const segments = 10
	for i := range segments {
		create(t, fmt.Sprint(i), 1)
		for range 3 {
			attach(t, fmt.Sprint(i))
			attach(t, fmt.Sprint(i), ReadOnly())
		}
	}
	if after, _, err := inUse(); after != before+segments || err != nil {
		t.Errorf("%d descriptors before, %d with %d segments, %v", before, after, segments, err)
	}
}

func TestAttachingAndDetachingLeavesNothingInTheProcess(t *testing.T) {
	store(t)
	round := func(i int) {
		a, b := must(Create(key, 5000))(t), must(Attach(key, ReadOnly()))(t)
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		a.Wait(ctx, 0)
		live, cancel := context.WithCancel(context.Background())
		defer cancel()
		a.Update(nothing)
		a.Wait(live, 0)
		if i%10 == 0 {
			short, cancel := context.WithTimeout(context.Background(), 20*time.Microsecond)
			defer cancel()
			a.Wait(short, a.Version())
			a.Grow(10000)
			b.View(nothing)
		}
		detach(t, a)
		detach(t, b)
	}
	round(0)
	count := func() (fds, goroutines int) {
		fds, _, err := inUse()
		if err != nil {
			t.Fatal(err)
		}
		return fds, runtime.NumGoroutine()
	}
	runtime.GC()
	fds, goroutines := count()
	const rounds = 4000
	for i := range rounds {
		round(i)
	}
	if _, mapped, err := inUse(); err != nil || mapped != 0 {
		t.Errorf("%d mappings of segments that are destroyed, %v", mapped, err)
	}
	eventually(t, "the collector unmaps the headers", func() bool {
		runtime.GC()
		return mappings.Load() <= rounds/10
	})
	if n := mappings.Load(); n < 0 {
		t.Errorf("%d mappings are counted", n)
	}
	eventually(t, "the goroutines of contexts end", func() bool { return runtime.NumGoroutine() <= goroutines })
	if f, _ := count(); f > fds {
		t.Errorf("%d descriptors before, %d after", fds, f)
	}
	if len(process.mappings) != 0 {
		t.Errorf("mappings of this process: %v", process.mappings)
	}
}

// lockManyRole makes the calls that need not wait, as many times as arg says.
func lockManyRole(arg string) error {
	n, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	seg, err := Create(key, 64)
	if err != nil {
		return err
	}
	defer seg.Close()
	buf := make([]byte, 64)
	always := func([]byte) bool { return true }
	for range n {
		seg.Lock()
		seg.Unlock()
		seg.TryLock()
		seg.Unlock()
		seg.Snapshot(buf)
		seg.Update(nothing)
		seg.View(nothing)
		seg.UpdateWhen(context.Background(), always, nothing)
		Store(seg, 0, int64(1))
		Load[int64](seg, 0)
		seg.Data()
		seg.WriteAt(buf, 0)
		seg.ReadAt(buf, 0)
		seg.Wait(context.Background(), seg.Version()-1)
	}
	return nil
}

// The runtime makes some system calls of its own. The promise is that there are not
// more of them with more rounds.
func TestUncontendedLockMakesNoSystemCall(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("no strace")
	}
	store(t)
	calls := func(rounds int) int {
		t.Helper()
		report := filepath.Join(t.TempDir(), "report")
		cmd := command("lock many", fmt.Sprint(rounds))
		cmd.Args = append([]string{strace, "-f", "-c", "-o", report}, os.Args[0])
		cmd.Path = strace
		cmd.Env = append(cmd.Env, "GOGC=off")
		if out, err := cmd.Output(); err != nil {
			t.Skipf("strace: %v: %s", err, out)
		}
		text, err := os.ReadFile(report)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if fields := strings.Fields(line); len(fields) > 3 && fields[len(fields)-1] == "total" {
				for _, f := range fields[3:] {
					if n, err := strconv.Atoi(f); err == nil {
						return n
					}
				}
			}
		}
		t.Fatalf("no total in the report:\n%s", text)
		return 0
	}
	const rounds = 20000
	if n := calls(rounds) - calls(1); n > rounds/10 {
		t.Errorf("%d rounds make %d system calls more than one round", rounds, n)
	}
}
