//go:build linux

package main

// allocColumns are the operations that must not allocate.
var allocColumns = []column{
	{Key: "lock", Title: "lock and unlock", format: plain},
	{Key: "snapshot", Title: "snapshot", format: plain},
	{Key: "wait", Title: "wait", format: plain},
	{Key: "read", Title: "read", format: plain},
	{Key: "write", Title: "write", format: plain},
}

// allocsGroup counts this library's heap allocations per operation.
func allocsGroup(all []*peer, _ plan) *group {
	g := &group{ID: "allocs", Title: "Heap allocations per operation", Columns: allocColumns}
	return withPeers(all, "allocs", g, func(p *peer, key string) (map[string]float64, error) {
		v := map[string]float64{}
		for _, c := range allocColumns {
			f, err := together(job{peer: p, op: "allocs", args: []string{option("key", key), option("what", c.Key)}})
			if err != nil {
				return nil, err
			}
			v[c.Key] = f[0].Alloc
		}
		return v, nil
	})
}
