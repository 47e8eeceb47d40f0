//go:build qshmfault

package shm

import "qshm/lockfile"

func fault(step string) { lockfile.Fault(step) }
