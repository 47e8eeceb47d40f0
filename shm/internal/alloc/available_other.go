//go:build !linux

package alloc

func available(dir string) (free, total int64, ok bool) { return space(dir) }
