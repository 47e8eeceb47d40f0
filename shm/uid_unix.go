//go:build unix

package shm

import (
	"io/fs"
	"syscall"
)

func fileUID(info fs.FileInfo) uint32 {
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		return stat.Uid
	}
	return 0
}
