//go:build !unix

package keymap

import "io/fs"

// ownName returns the name of the user's own store. The temp directory belongs to the
// user already.
func ownName() string { return "qshm" }

// writable reports false: there is no /dev/shm.
func writable(string) bool { return false }

// Access is governed by lists, not by an owner and a mode.
func owned(fs.FileInfo) bool   { return true }
func exposed(fs.FileInfo) bool { return false }
