//go:build linux && (amd64 || arm || arm64 || loong64 || mips64 || mips64le || riscv64)

package main

import (
	"errors"
	"hash/fnv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// semopPeer is the lock of QSharedMemory's SysV backend: one semaphore with SEM_UNDO, which the kernel releases when its
// process dies.
var semopPeer = goPeer{"semop", "SysV semop", "", lockOps(openSemaphore)}

type semaphore struct{ id uintptr }

type sembuf struct {
	num, op, flags int16
}

const (
	ipcCreat = 0o1000
	ipcExcl  = 0o2000
	ipcRmid  = 0
	setval   = 16
	semUndo  = 0x1000
)

func openSemaphore(key string, create bool) (plainLock, error) {
	h := fnv.New32a()
	h.Write([]byte(key))
	flags := uintptr(0o600)
	if create {
		flags |= ipcCreat | ipcExcl
	}
	id, _, e := unix.Syscall(unix.SYS_SEMGET, uintptr(h.Sum32()&0x7fffffff|1), 1, flags)
	if e != 0 {
		return nil, e
	}
	if create {
		if _, _, e := unix.Syscall6(unix.SYS_SEMCTL, id, 0, setval, 1, 0, 0); e != 0 {
			return nil, e
		}
	}
	return &semaphore{id}, nil
}

func (s *semaphore) add(n int16) error {
	b := sembuf{op: n, flags: semUndo}
	for {
		_, _, e := unix.Syscall(unix.SYS_SEMOP, s.id, uintptr(unsafe.Pointer(&b)), 1)
		if e == 0 {
			return nil
		}
		if !errors.Is(e, unix.EINTR) {
			return e
		}
	}
}

func (s *semaphore) Lock() error   { return s.add(-1) }
func (s *semaphore) Unlock() error { return s.add(1) }
func (s *semaphore) remove()       { _, _, _ = unix.Syscall(unix.SYS_SEMCTL, s.id, 0, ipcRmid) }
