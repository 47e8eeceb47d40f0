//go:build linux

package main

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// counters maps the eight counters of the contended section, for the peers that are locks without memory.
func counters(key string, create bool) (d *[8]uint64, unmap func(), err error) {
	path := lockPath(key) + ".counters"
	if create {
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			return nil, nil, err
		}
	}
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	b, err := unix.Mmap(fd, 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, nil, err
	}
	return (*[8]uint64)(unsafe.Pointer(&b[0])), func() {
		_ = unix.Munmap(b)
		if create {
			_ = os.Remove(path)
		}
	}, nil
}
