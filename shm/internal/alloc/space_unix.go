//go:build linux || darwin || freebsd || dragonfly

package alloc

import "golang.org/x/sys/unix"

func space(dir string) (free, total int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil || s.Blocks == 0 { // ramfs has no limit, and says zero
		return 0, 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), true
}
