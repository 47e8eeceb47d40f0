//go:build qshmsiblings

package lockfile

// forceSiblings makes the tests run on sibling files where there are record locks.
const forceSiblings = true
