//go:build !linux && !darwin && !freebsd && !dragonfly && !windows

package alloc

func space(string) (free, total int64, ok bool) { return 0, 0, false }
