package alloc

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tree makes the package see a system that has these files and no others. A
// file whose text is "unreadable" cannot be read.
func tree(t *testing.T, files map[string]string) {
	t.Helper()
	old := root
	t.Cleanup(func() { root = old })
	root = t.TempDir()
	for name, text := range files {
		path := filepath.Join(root, name)
		if text == "unreadable" { // also for root
			path = filepath.Join(path, "directory")
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

const (
	otherMounts = "21 26 0:20 / /proc rw,relatime - proc proc rw\n22 26 0:21 / /sys rw - sysfs sysfs rw\n" +
		"30 22 0:27 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n" +
		"32 30 0:29 / /sys/fs/cgroup/cpu rw,relatime shared:3 master:1 - cgroup cgroup rw,cpu,cpuacct\n"
	mountV2       = "33 22 0:30 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n"
	mountUnified  = "33 22 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
	mountV1       = "34 30 0:31 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n"
	pathsV1       = "12:cpu,cpuacct:/c\n4:memory:/a/b\n1:name=systemd:/d\n0::/e\n"
	v1            = "sys/fs/cgroup/memory/"
	v2            = "sys/fs/cgroup/"
	none          = "9223372036854771712\n" // no limit, in version 1
	statV2        = "anon 500\nfile 900\nshmem 700\ninactive_file 30\nactive_file 20\nslab_reclaimable 7\nslab 90\n"
	statV1        = "cache 900\ninactive_file 1\nactive_file 2\ntotal_cache 9000\ntotal_inactive_file 30\ntotal_active_file 20\n"
	swaps         = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"
	oneMiBOfSwap  = swaps + "/dev/sdb2                               partition\t1536\t\t512\t\t-2\n"
	twoMiBsOfSwap = oneMiBOfSwap + "/swap\\040file                               file\t1024\t\t0\t\t-3\n"
)

func TestLimits(t *testing.T) {
	type files = map[string]string
	for name, test := range map[string]struct {
		files       files
		left, limit int64 // zero: no limit
	}{
		"no cgroups": {files: files{}},
		"version 2": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": otherMounts + mountV2, "proc/swaps": swaps,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
		}, 6057, 10000},
		"version 2, no limit": {files: files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "max\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
		}},
		"version 2, nested": {files{
			"proc/self/cgroup": "0::/a/b/c/d\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "9000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
			v2 + "a/b/memory.max": "8000\n", v2 + "a/b/memory.current": "2000\n", v2 + "a/b/memory.stat": "",
			v2 + "a/b/c/memory.max": "max\n", // and d has no such file: the controller is not enabled
		}, 5057, 9000},
		"version 2, a container's namespace": {files{
			"proc/self/cgroup": "0::/\n", "proc/self/mountinfo": mountV2,
			v2 + "memory.max": "10000\n", v2 + "memory.current": "4000\n", v2 + "memory.stat": statV2,
		}, 6057, 10000},
		"version 2, outside of the namespace": {files: files{
			"proc/self/cgroup": "0::/../a\n", "proc/self/mountinfo": mountV2,
			v2 + "memory.max": "1\n", v2 + "memory.current": "0\n", v2 + "memory.stat": "",
			v2 + "a/memory.max": "1\n", v2 + "a/memory.current": "0\n", v2 + "a/memory.stat": "",
		}},
		"version 2, more used than allowed": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "20000\n", v2 + "a/memory.stat": statV2,
		}, 0, 10000},
		"version 2, limit of nothing": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "0\n", v2 + "a/memory.current": "0\n", v2 + "a/memory.stat": "",
		}, 0, 0},
		"version 2, swap": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "proc/swaps": twoMiBsOfSwap,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
			v2 + "a/memory.swap.max": "max\n", v2 + "a/memory.swap.current": "5\n",
		}, 6057 + 2<<20, 10000},
		"version 2, limited swap": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "proc/swaps": oneMiBOfSwap,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
			v2 + "a/memory.swap.max": "3000\n", v2 + "a/memory.swap.current": "1000\n",
		}, 8057, 10000},
		"version 2, swap used up": {files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2, "proc/swaps": oneMiBOfSwap,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
			v2 + "a/memory.swap.max": "3000\n", v2 + "a/memory.swap.current": "4000\n",
		}, 6057, 10000},
		"version 2, unreadable usage": {files: files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "unreadable", v2 + "a/memory.stat": statV2,
		}},
		"version 2, unreadable statistics": {files: files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": "unreadable",
		}},
		"version 2, unreadable limit below a limit": {files{
			"proc/self/cgroup": "0::/a/b\n", "proc/self/mountinfo": mountV2,
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
			v2 + "a/b/memory.max": "unreadable",
		}, 6057, 10000},
		"unreadable mounts": {files: files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": "unreadable",
			v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
		}},
		"unreadable cgroup": {files: files{
			"proc/self/cgroup": "unreadable", "proc/self/mountinfo": mountV2 + mountV1,
			v2 + "memory.max": "10000\n", v2 + "memory.current": "4000\n", v2 + "memory.stat": statV2,
		}},
		"not mounted": {files: files{
			"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": otherMounts + mountV1,
			v1 + "a/memory.limit_in_bytes": "1\n", v1 + "a/memory.usage_in_bytes": "0\n", v1 + "a/memory.stat": statV1,
		}},
		"nonsense": {files: files{
			"proc/self/cgroup": "x\n\n::\n0::/a\n", "proc/self/mountinfo": "x\n - cgroup\n - cgroup2 \n1 2 3 4 5 - cgroup2\n" + mountV2,
			v2 + "a/memory.max": "-\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": statV2,
		}},
		"version 1": {files{
			"proc/self/cgroup": pathsV1, "proc/self/mountinfo": otherMounts + mountV1, "proc/swaps": swaps,
			v1 + "memory.limit_in_bytes": none, v1 + "a/memory.limit_in_bytes": none,
			v1 + "a/b/memory.limit_in_bytes": "10000\n", v1 + "a/b/memory.usage_in_bytes": "4000\n", v1 + "a/b/memory.stat": statV1,
		}, 6050, 10000},
		"version 1, nested": {files{
			"proc/self/cgroup": pathsV1, "proc/self/mountinfo": otherMounts + mountV1,
			v1 + "a/memory.limit_in_bytes": "11000\n", v1 + "a/memory.usage_in_bytes": "9000\n", v1 + "a/memory.stat": statV1,
			v1 + "a/b/memory.limit_in_bytes": "10000\n", v1 + "a/b/memory.usage_in_bytes": "4000\n", v1 + "a/b/memory.stat": statV1,
		}, 2050, 11000},
		"version 1, no limit": {files: files{
			"proc/self/cgroup": pathsV1, "proc/self/mountinfo": otherMounts + mountV1,
			v1 + "a/b/memory.limit_in_bytes": none, v1 + "a/b/memory.usage_in_bytes": "4000\n", v1 + "a/b/memory.stat": statV1,
		}},
		"version 1, swap": {files{
			"proc/self/cgroup": pathsV1, "proc/self/mountinfo": otherMounts + mountV1, "proc/swaps": oneMiBOfSwap,
			v1 + "a/b/memory.limit_in_bytes": "10000\n", v1 + "a/b/memory.usage_in_bytes": "4000\n", v1 + "a/b/memory.stat": statV1,
			v1 + "a/b/memory.memsw.limit_in_bytes": none, v1 + "a/b/memory.memsw.usage_in_bytes": "4000\n",
		}, 6050 + 1<<20, 10000},
		"version 1, limited swap": {files{
			"proc/self/cgroup": pathsV1, "proc/self/mountinfo": otherMounts + mountV1, "proc/swaps": oneMiBOfSwap,
			v1 + "a/b/memory.limit_in_bytes": "10000\n", v1 + "a/b/memory.usage_in_bytes": "4000\n", v1 + "a/b/memory.stat": statV1,
			v1 + "a/b/memory.memsw.limit_in_bytes": "12000\n", v1 + "a/b/memory.memsw.usage_in_bytes": "4500\n",
		}, 7550, 10000},
		"version 1, a container that sees its own cgroup only": {files{
			"proc/self/cgroup":                 "4:memory:/docker/machine-a\\x2db/inner\n",
			"proc/self/mountinfo":              "34 30 0:31 /docker/machine-a\\134x2db /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n",
			v1 + "memory.limit_in_bytes":       "10000\n",
			v1 + "memory.usage_in_bytes":       "4000\n",
			v1 + "memory.stat":                 statV1,
			v1 + "inner/memory.limit_in_bytes": none,
		}, 6050, 10000},
		"version 1, a mount of another cgroup": {files{
			"proc/self/cgroup":                  "4:memory:/docker/ab\n",
			"proc/self/mountinfo":               "35 30 0:31 /docker/a /other/point rw - cgroup cgroup rw,memory\n" + mountV1,
			"other/point/memory.limit_in_bytes": "1\n", "other/point/memory.usage_in_bytes": "0\n", "other/point/memory.stat": "",
			v1 + "docker/ab/memory.limit_in_bytes": "10000\n", v1 + "docker/ab/memory.usage_in_bytes": "4000\n",
			v1 + "docker/ab/memory.stat": statV1,
		}, 6050, 10000},
		"hybrid": {files{ // the controller is in version 1, whatever stands in version 2
			"proc/self/cgroup": "0::/e\n4:memory:/a\n", "proc/self/mountinfo": otherMounts + mountUnified + mountV1,
			"sys/fs/cgroup/unified/e/memory.max": "1\n", "sys/fs/cgroup/unified/e/memory.current": "0\n",
			"sys/fs/cgroup/unified/e/memory.stat": "",
			v1 + "a/memory.limit_in_bytes":        "10000\n", v1 + "a/memory.usage_in_bytes": "4000\n", v1 + "a/memory.stat": statV1,
		}, 6050, 10000},
		"hybrid, the controller in version 2": {files{
			"proc/self/cgroup": "12:cpu,cpuacct:/c\n0::/e\n", "proc/self/mountinfo": otherMounts + mountUnified,
			"sys/fs/cgroup/unified/e/memory.max": "10000\n", "sys/fs/cgroup/unified/e/memory.current": "4000\n",
			"sys/fs/cgroup/unified/e/memory.stat": statV2,
		}, 6057, 10000},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, test.files)
			left, limit, limited := cgroupsLeave()
			if left != test.left || limit != test.limit || limited != (limit != 0 || name == "version 2, limit of nothing") {
				t.Errorf("%d of %d left (limited: %v), want %d of %d", left, limit, limited, test.left, test.limit)
			}
		})
	}
}

// Files on a disk are cached in memory, but the kernel writes them back when
// the limit is reached.
func TestLimitsCountInMemoryOnly(t *testing.T) {
	files := map[string]string{
		"proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": mountV2,
		v2 + "a/memory.max": "10000\n", v2 + "a/memory.current": "4000\n", v2 + "a/memory.stat": "",
	}
	memory, disk := mount(t, "tmpfs"), "/"
	tree(t, files)
	if free, total, ok := Available(memory); free != 6000 || total != 10000 || !ok {
		t.Errorf("in memory: %d of %d, %v", free, total, ok)
	}
	if inMemory(disk) {
		t.Skip("the root directory is in memory")
	}
	if free, _, ok := Available(disk); ok && free == 6000 {
		t.Error("on disk: the cgroup's limit counts")
	}
}

// How a test below runs as another process.
const childEnv = "QSHM_TEST_ALLOC_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

const testLimit = 128 << 20

// testCgroup makes a memory cgroup with a limit, and one in it without, and
// returns that.
func testCgroup(t *testing.T) string {
	t.Helper()
	const name = "qshm-test"
	for group := range memoryCgroups { // version 2 allows none beside processes, so it may have to be further up
		outer := filepath.Join(group.dir, fmt.Sprintf("%s-%d", name, os.Getpid()))
		inner := filepath.Join(outer, "inner")
		if os.Mkdir(outer, 0o755) != nil {
			continue
		}
		t.Cleanup(func() { remove(t, outer) })
		limit := "memory.max"
		if group.v1 {
			limit = "memory.limit_in_bytes"
		}
		file, err := os.OpenFile(filepath.Join(outer, limit), os.O_WRONLY, 0) // it is there if the controller is
		if err != nil {
			continue
		}
		_, err = file.WriteString(strconv.Itoa(testLimit))
		file.Close()
		if err == nil && os.Mkdir(inner, 0o755) == nil {
			t.Cleanup(func() { remove(t, inner) })
			return inner
		}
	}
	t.Skip("cannot make a memory cgroup")
	return ""
}

// remove removes a cgroup when its processes have ended.
func remove(t *testing.T, group string) {
	var err error
	for range 100 {
		if err = os.Remove(group); err == nil || errors.Is(err, fs.ErrNotExist) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error(err)
}

// A process of a cgroup with a limit is told what it may allocate, and can.
func TestCgroup(t *testing.T) {
	const dir = "/dev/shm"
	if free, _, ok := Available(dir); !ok || !inMemory(dir) || free < 2*testLimit {
		t.Skip("no room in", dir)
	}
	inner := testCgroup(t)
	store, err := os.MkdirTemp(dir, "qshm-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(store) })
	cmd := exec.Command(os.Args[0], t.TempDir())
	cmd.Env = append(os.Environ(), childEnv+"="+store)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(inner, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
		t.Error("the child cannot be moved into the cgroup:", err)
	}
	stdin.Close()
	timeout := time.AfterFunc(time.Minute, func() { cmd.Process.Kill() })
	defer timeout.Stop()
	if err := cmd.Wait(); err != nil {
		t.Errorf("%v: %s", err, out.String())
	}
	t.Log(out.String())
}

// child is the process of TestCgroup, with a directory in memory, and one of
// os.Args[1] that may be on a disk.
func child(dir string) error {
	bufio.NewReader(os.Stdin).ReadByte() // until it is in the cgroup
	wantNear := func(what string, want int64) (int64, error) {
		for start := time.Now(); ; time.Sleep(100 * time.Millisecond) {
			free, total, ok := Available(dir)
			fmt.Printf("%s: %d of %d MiB\n", what, free>>20, total>>20)
			switch {
			case ok && total == testLimit && free <= want && free >= want-testLimit/4:
				return free, nil
			case time.Since(start) > 10*time.Second: // the kernel counts cached files a little late
				return 0, fmt.Errorf("%s: %d of %d available, %v; want a little less than %d of %d", what, free, total, ok, want, testLimit)
			}
		}
	}
	if _, err := wantNear("at first", testLimit); err != nil {
		return err
	}
	const half = testLimit / 2
	file, err := os.Create(filepath.Join(dir, "first"))
	if err != nil {
		return err
	}
	if err := Allocate(file, 0, half); err != nil {
		return err
	}
	if _, err := wantNear("half allocated", half); err != nil {
		return err
	}
	if !inMemory(os.Args[1]) { // cached files do not count
		if err := exec.Command("dd", "if=/dev/zero", "of="+filepath.Join(os.Args[1], "cached"), "bs=64k",
			fmt.Sprint("count=", testLimit*3/8>>16), "conv=fsync").Run(); err != nil {
			fmt.Println("no cached files:", err)
		}
	}
	free, err := wantNear("with cached files", half)
	if err != nil {
		return err
	}
	if swap := freeSwap(); swap > 0 {
		fmt.Println("swap:", swap>>20, "MiB")
		return nil
	}
	second, err := os.Create(filepath.Join(dir, "second"))
	if err != nil {
		return err
	}
	const reserve = 4 << 20 // for this process itself
	if err := Allocate(second, 0, free-reserve); err != nil {
		return err
	}
	free, _, _ = Available(dir)
	fmt.Printf("all but %d MiB allocated: %d MiB\n", reserve>>20, free>>20)
	if free > 2*reserve {
		return fmt.Errorf("%d available, want %d or less", free, 2*reserve)
	}
	return nil
}

// The time that the question takes must not count beside an allocation of a
// MiB, which takes at least 100 µs.
func BenchmarkAvailable(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		Available("/dev/shm")
	}
}

func BenchmarkAllocate(b *testing.B) {
	file, err := os.CreateTemp("/dev/shm", "qshm-test-")
	if err != nil {
		b.Skip(err)
	}
	os.Remove(file.Name())
	defer file.Close()
	for b.Loop() {
		if err := Allocate(file, 0, 1<<20); err != nil {
			b.Fatal(err)
		}
		unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20)
	}
}
