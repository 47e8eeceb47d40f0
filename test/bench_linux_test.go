//go:build linux && (amd64 || arm64 || riscv64 || loong64)

package test

import (
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// benchSystemLocks measures locks of the system: flock(2) on a file that stays open,
// and a System V semaphore with undo, which QSharedMemory uses.
func benchSystemLocks(b *testing.B) {
	b.Run("flock", func(b *testing.B) {
		f, err := os.Create(filepath.Join(b.TempDir(), "lock"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		fd := int(f.Fd())
		for b.Loop() {
			unix.Flock(fd, unix.LOCK_EX)
			unix.Flock(fd, unix.LOCK_UN)
		}
	})
	b.Run("semop", func(b *testing.B) {
		const ipcPrivate, setVal, undo = 0, 16, 0x1000
		sem, _, errno := unix.Syscall(unix.SYS_SEMGET, ipcPrivate, 1, unix.IPC_CREAT|0o600)
		if errno != 0 {
			b.Skip("no System V semaphores: ", errno)
		}
		defer unix.Syscall(unix.SYS_SEMCTL, sem, 0, unix.IPC_RMID)
		type sembuf struct {
			num       uint16
			op, flags int16
		}
		down, up := sembuf{op: -1, flags: undo}, sembuf{op: 1, flags: undo}
		unix.Syscall6(unix.SYS_SEMCTL, sem, 0, setVal, 1, 0, 0)
		for b.Loop() {
			unix.Syscall(unix.SYS_SEMOP, sem, uintptr(unsafe.Pointer(&down)), 1)
			unix.Syscall(unix.SYS_SEMOP, sem, uintptr(unsafe.Pointer(&up)), 1)
		}
	})
}
