//go:build !windows

package shm

// onlyWakes has nothing to do: a futex ends a sleep by a wake only, and elsewhere
// there are none.
func onlyWakes() {}
