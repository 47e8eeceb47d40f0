// Package alloc allocates the memory behind a file, and says how much of it is
// free.
package alloc

import "os"

// Allocate makes sure that memory stands behind length bytes of the file from
// off on, so that using them later cannot fail. It makes the file longer if it
// has to, and keeps what is written there already.
//
// Where the system has no call for this, Allocate writes zeros from the end of
// the file on, and takes what precedes the end as allocated.
func Allocate(file *os.File, off, length int64) error { return allocate(file, off, length) }

// Free returns how many bytes the file system of dir has free for this user,
// and how many it has. ok is false if the file system does not say.
func Free(dir string) (free, total int64, ok bool) { return space(dir) }

// Available returns how many bytes can be allocated in dir: what the file
// system has free or, if that keeps its files in memory and is less, what a
// memory cgroup of this process leaves. total is how many bytes the file
// system, or that cgroup, has. Memory that the kernel can reclaim for the
// cgroup counts as available.
//
// It reads a dozen small files, so it is meant to be asked before large
// allocations only.
func Available(dir string) (free, total int64, ok bool) { return available(dir) }
