// Package race tells the race detector about the lock of a segment. The
// detector does not see synchronization through mapped memory: without this, it
// would report data on the heap that the lock guards as unguarded. Go's own
// lockedfile.Mutex has a redundant mutex for the same reason.
package race
