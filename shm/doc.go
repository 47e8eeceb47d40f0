// Package shm lets processes on one machine share memory by key.
//
// One process creates a segment under a key, others attach to it; everyone
// locks, uses the memory, unlocks, and detaches. With the last detach the memory
// is gone. If processes die instead, at any point, those who come next find
// things as if they had detached in time.
//
// # How it works
//
// A segment is a file in a directory, the store: /dev/shm/qshm-<uid>, or what
// $QSHM_DIR or [Dir] name. The key gives the file its name (package keymap). The
// file begins with a header (header.go), and the data follow; both are mapped.
package shm
