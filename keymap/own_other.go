//go:build !unix

package keymap

import "io/fs"

// ownName is the name of the user's own store: the temp directory is already
// the user's own here, and access is the system's lists, not a mode.
func ownName() string { return "qshm" }

func owned(fs.FileInfo) bool { return true }

func exposed(fs.FileInfo) bool { return false }
