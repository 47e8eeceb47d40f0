package alloc

import (
	"bufio"
	"io"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Reading the limits of memory cgroups, see cgroups(7). A process that
// allocates more than its cgroups allow gets no error: the kernel kills a
// process of the cgroup. A limit that cannot be read or understood is ignored,
// because a wrong guess would refuse what could have worked.

// root is the directory that the files of the system are in. It is a variable
// for tests.
var root = "/"

// cgroupsLeave returns what the memory cgroup leaves that leaves least, and its
// limit. limited is false if none has a limit.
func cgroupsLeave() (left, limit int64, limited bool) {
	for group := range memoryCgroups {
		if n, max, ok := group.leaves(); ok && (!limited || n < left) {
			left, limit, limited = n, max, true
		}
	}
	return left, limit, limited
}

// A cgroup is the directory of a memory cgroup, of version 1 or 2.
type cgroup struct {
	dir string
	v1  bool
}

// memoryCgroups calls yield with the memory cgroup of this process and with all
// above it, as far as they are mounted.
func memoryCgroups(yield func(cgroup) bool) {
	path, v1 := cgroupPath()
	if path == "" {
		return
	}
	f, err := open(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return
	}
	defer f.close()
	// The kernel makes the text while it is read, and it can be long, so it is
	// read only as far as necessary.
	for lines := bufio.NewScanner(f); lines.Scan(); {
		point, rest, ok := cgroupMount(lines.Text(), path, v1)
		if !ok {
			continue
		}
		top := filepath.Join(root, point)
		for dir := filepath.Join(top, rest); yield(cgroup{dir, v1}) && dir != top; {
			dir = filepath.Dir(dir)
		}
		return
	}
}

// cgroupPath returns the path of this process's memory cgroup in its hierarchy,
// or "", and the version.
func cgroupPath() (path string, v1 bool) {
	text, _ := read(filepath.Join(root, "proc/self/cgroup"))
	for line := range strings.Lines(text) {
		// Such as "4:memory:/a/b", or "0::/a/b" for version 2, which has the
		// memory controller if no other line has it.
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		switch {
		case len(fields) < 3:
		case inList("memory", fields[1]):
			path, v1 = fields[2], true
		case fields[1] == "" && !v1:
			path = fields[2]
		}
	}
	if strings.Contains(path, "/..") { // outside of this process's cgroup namespace: it cannot be seen
		return "", false
	}
	return path, v1
}

// cgroupMount reports whether a line of mountinfo is a mount of the memory
// hierarchy that shows the cgroup with the path; it returns the mount point,
// and the cgroup's path below that.
func cgroupMount(line, path string, v1 bool) (point, rest string, ok bool) {
	// Such as "34 30 0:31 / /mount/point rw shared:9 - cgroup cgroup rw,memory".
	before, after, ok := strings.Cut(line, " - cgroup")
	if !ok {
		return "", "", false
	}
	mount, source := strings.Fields(before), strings.Fields(after)
	if len(mount) < 5 || len(source) == 0 {
		return "", "", false
	}
	if v1 && !inList("memory", source[len(source)-1]) || !v1 && !strings.HasPrefix(after, "2 ") {
		return "", "", false
	}
	shown := strings.TrimSuffix(unescape.Replace(mount[3]), "/")
	rest, ok = strings.CutPrefix(path, shown)
	return unescape.Replace(mount[4]), rest, ok && (rest == "" || rest[0] == '/')
}

// unescape undoes the escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// inList reports whether the name is in a list that is separated by commas.
func inList(name, list string) bool { return slices.Contains(strings.Split(list, ","), name) }

// leaves returns how many bytes can be allocated before the limit of the cgroup
// is reached and nothing can be reclaimed or swapped out any more. limited is
// false if the cgroup has no limit, or if it cannot be told.
func (g cgroup) leaves() (left, limit int64, limited bool) {
	if g.v1 {
		left, limit, limited = g.margin("memory.limit_in_bytes", "memory.usage_in_bytes")
		if !limited {
			return 0, 0, false
		}
		left += freeSwap()
		// This limit is for memory and swap together.
		if both, _, ok := g.margin("memory.memsw.limit_in_bytes", "memory.memsw.usage_in_bytes"); ok {
			left = min(left, both)
		}
	} else {
		left, limit, limited = g.margin("memory.max", "memory.current")
		if !limited {
			return 0, 0, false
		}
		swap := freeSwap()
		if allowed, _, ok := g.margin("memory.swap.max", "memory.swap.current"); ok {
			swap = min(swap, max(0, allowed))
		}
		left += swap
	}
	reclaimable, ok := g.reclaimable()
	return max(0, left+reclaimable), limit, ok
}

// unlimited is less than what version 1 says where there is no limit (it
// depends on the page size), and more than any machine has.
const unlimited = 1 << 50

// margin returns how far a usage is below its limit, and the limit. ok is false
// if there is none, or if it cannot be read.
func (g cgroup) margin(limitFile, usageFile string) (margin, limit int64, ok bool) {
	limit, ok = g.number(limitFile)
	if !ok || limit >= unlimited {
		return 0, 0, false
	}
	usage, ok := g.number(usageFile)
	return limit - usage, limit, ok
}

// number reads a file that has one number in it. ok is false for "max".
func (g cgroup) number(name string) (n int64, ok bool) {
	text, _ := read(filepath.Join(g.dir, name))
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	return n, err == nil
}

// reclaimable returns how many bytes of the cgroup's memory the kernel can take
// back: cached files (those of tmpfs do not count as such) and, where it says
// how many they are, its own caches.
func (g cgroup) reclaimable() (sum int64, ok bool) {
	text, err := read(filepath.Join(g.dir, "memory.stat"))
	keys := []string{"active_file", "inactive_file", "slab_reclaimable"}
	if g.v1 { // without "total_", the figures are without those of the cgroups below
		keys = []string{"total_active_file", "total_inactive_file"}
	}
	for line := range strings.Lines(text) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		if slices.Contains(keys, key) {
			n, _ := strconv.ParseInt(value, 10, 64)
			sum += n
		}
	}
	return sum, err == nil
}

// freeSwap returns how many bytes of swap the machine has free.
func freeSwap() (free int64) {
	text, _ := read(filepath.Join(root, "proc/swaps"))
	for line := range strings.Lines(text) {
		// Such as "/dev/sdb2 partition 1048572 3072 -2": size and use in KiB,
		// after a heading.
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		size, err := strconv.ParseInt(fields[2], 10, 64)
		used, err2 := strconv.ParseInt(fields[3], 10, 64)
		if err == nil && err2 == nil {
			free += (size - used) << 10
		}
	}
	return free
}

// A file is a descriptor. Opening an os.File costs three times as much, because
// it is prepared for polling.
type file int

func open(path string) (file, error) {
	for {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != unix.EINTR {
			return file(fd), err
		}
	}
}

func (f file) Read(p []byte) (int, error) {
	for {
		n, err := unix.Read(int(f), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return 0, err
		case n == 0:
			return 0, io.EOF
		default:
			return n, nil
		}
	}
}

func (f file) close() { unix.Close(int(f)) }

// read returns what is in a small file.
func read(path string) (string, error) {
	f, err := open(path)
	if err != nil {
		return "", err
	}
	defer f.close()
	var buf [16384]byte
	for n := 0; n < len(buf); {
		m, err := f.Read(buf[n:])
		if n += m; err == io.EOF {
			return string(buf[:n]), nil
		}
		if err != nil {
			return "", err
		}
	}
	return "", io.ErrShortBuffer
}
