//go:build !qshmfault

package lockfile

// failpoint marks a step that the process can die at. It does nothing without the
// build tag qshmfault.
func failpoint(step string) {}
