//go:build unix && !solaris

package main

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// prepareFlock measures a lock of the kernel, on a file that stays open.
func prepareFlock(b *bench) (func() error, func(), error) {
	file, err := os.Create(filepath.Join(b.dir, "flock"))
	if err != nil {
		return nil, nil, err
	}
	fd := int(file.Fd())
	return func() error {
		if err := unix.Flock(fd, unix.LOCK_EX); err != nil {
			return err
		}
		return unix.Flock(fd, unix.LOCK_UN)
	}, func() { file.Close() }, nil
}
