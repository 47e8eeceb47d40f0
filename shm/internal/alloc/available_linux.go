package alloc

import "golang.org/x/sys/unix"

func available(dir string) (free, total int64, ok bool) {
	free, total, ok = space(dir)
	if inMemory(dir) {
		if left, limit, limited := cgroupsLeave(); limited && (!ok || left < free) {
			return left, limit, true
		}
	}
	return free, total, ok
}

// inMemory reports whether the files in dir are charged to memory cgroups: a
// file system on a disk can write them back instead.
func inMemory(dir string) bool {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return false
	}
	return uint32(s.Type) == unix.TMPFS_MAGIC || uint32(s.Type) == unix.RAMFS_MAGIC
}
