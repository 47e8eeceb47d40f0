//go:build !qshmsiblings

package lockfile

const forceSiblings = false
