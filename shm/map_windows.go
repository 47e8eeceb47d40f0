package shm

// mapAlign is what the offset of a mapping must be a multiple of: the allocation
// granularity, which is 64 KiB on every Windows.
func mapAlign() int { return 64 << 10 }
