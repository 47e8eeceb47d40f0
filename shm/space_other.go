//go:build !linux && !darwin && !freebsd && !dragonfly && !windows

package shm

// space is not known here: the message goes without the figures.
func space(string) (free, total int64, ok bool) { return 0, 0, false }
