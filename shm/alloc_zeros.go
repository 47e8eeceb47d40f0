//go:build !windows

package shm

import "os"

// writeZeros allocates by writing, where the system has no call for it. The
// header has been written already, as far as the slots.
func writeZeros(file *os.File, off, length int64) error {
	if off == 0 {
		off, length = int64(slotsOff), length-int64(slotsOff)
	}
	zeros := make([]byte, min(length, 1<<20))
	for length > 0 {
		n, err := file.WriteAt(zeros[:min(length, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off, length = off+int64(n), length-int64(n)
	}
	return nil
}
