//go:build unix

package keymap

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ownName is the name of the user's own store.
func ownName() string { return fmt.Sprintf("qshm-%d", os.Geteuid()) }

func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == uint32(os.Geteuid())
}

func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
