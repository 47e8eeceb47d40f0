//go:build linux && !(amd64 || arm || arm64 || loong64 || mips64 || mips64le || riscv64)

package main

// Here semop has no system call of its own in golang.org/x/sys.
var semopPeer = goPeer{variant: "semop", name: "SysV semop"}
