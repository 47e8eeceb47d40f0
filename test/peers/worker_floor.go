//go:build linux

package main

import "sync/atomic"

// floorPeer shows the least time of a lock that takes one atomic operation to lock and one to unlock: how much of a figure
// is the processor's, and how much the library's.
var floorPeer = goPeer{"floor", "two compare-and-swaps", "", map[string]func(*worker) error{
	"lock": func(w *worker) error {
		var word atomic.Uint64
		return w.bench(func(n int) error {
			for range n {
				word.CompareAndSwap(0, 1)
				word.CompareAndSwap(1, 0)
			}
			return nil
		})
	},
}}
