//go:build qshmfault

package lockfile

// Failpoint, if set, is called at each step that the process can die at. It exists
// with the build tag qshmfault only.
var Failpoint func(step string)

func failpoint(step string) {
	if Failpoint != nil {
		Failpoint(step)
	}
}
