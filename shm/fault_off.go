//go:build !qshmfault

package shm

// fault names a step that a crash could split from the one before. It is nothing,
// but in tests that die at each of them: see fault_on.go.
func fault(step string) {}
