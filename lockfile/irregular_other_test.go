//go:build !unix

package lockfile

import "testing"

func irregular(t *testing.T) map[string]string {
	return map[string]string{"directory": t.TempDir()}
}
