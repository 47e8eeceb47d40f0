//go:build linux || darwin || freebsd || dragonfly

package shm

import "golang.org/x/sys/unix"

// space returns how many bytes are free for us, and how many there are, where dir is.
func space(dir string) (free, total int64, ok bool) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, false
	}
	return int64(s.Bavail) * int64(s.Bsize), int64(s.Blocks) * int64(s.Bsize), true
}
