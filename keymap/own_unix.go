//go:build unix

package keymap

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// ownName returns the name of the user's own store.
func ownName() string { return fmt.Sprintf("qshm-%d", os.Geteuid()) }

// writable reports whether this process may make a directory in dir.
func writable(dir string) bool {
	const writeAndSearch = 0o3
	return syscall.Access(dir, writeAndSearch) == nil
}

// owned reports whether the directory belongs to the user.
func owned(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && stat.Uid == uint32(os.Geteuid())
}

// exposed reports whether other users have any permission on the directory.
func exposed(info fs.FileInfo) bool { return info.Mode().Perm()&0o077 != 0 }
