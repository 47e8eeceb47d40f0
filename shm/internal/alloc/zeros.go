//go:build !windows

package alloc

import "os"

// writeZeros allocates what lies beyond the end of the file by writing it.
func writeZeros(file *os.File, off, length int64) error {
	info, err := file.Stat()
	if err != nil {
		return err
	}
	end := off + length
	off = max(off, info.Size())
	zeros := make([]byte, max(0, min(end-off, 1<<20)))
	for off < end {
		n, err := file.WriteAt(zeros[:min(end-off, int64(len(zeros)))], off)
		if err != nil {
			return err
		}
		off += int64(n)
	}
	return nil
}
