//go:build unix

package shm

import "os"

// mapAlign is what the offset of a mapping must be a multiple of.
func mapAlign() int { return os.Getpagesize() }
