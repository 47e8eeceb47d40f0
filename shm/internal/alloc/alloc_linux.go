package alloc

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

func allocate(file *os.File, off, length int64) error {
	for {
		err := unix.Fallocate(int(file.Fd()), 0, off, length)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS):
			return writeZeros(file, off, length)
		default:
			return &fs.PathError{Op: "fallocate", Path: file.Name(), Err: err}
		}
	}
}
