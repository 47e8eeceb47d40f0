//go:build linux

package main

import "sync/atomic"

// memcpyPeer copies within one process, with which moving memory between processes is compared. It too uses the slots in
// turn.
var memcpyPeer = goPeer{"gocopy", "copy within one process (Go)", "", map[string]func(*worker) error{
	"memcpy": func(w *worker) error {
		size, slots := w.number("size", 64), w.number("slots", 2)
		from, to := make([]byte, size), make([]byte, size*slots)
		for i := range to {
			to[i] = 1
		}
		for i := range from {
			from[i] = 1
		}
		i := 0
		return w.bench(func(n int) error {
			for range n {
				copy(to[size*(i%slots):][:size], from)
				i++
			}
			return nil
		})
	},
}}

// busyPeer keeps a processor busy: readers of a segment are compared with it.
var busyPeer = goPeer{"busy", "busy process", "", map[string]func(*worker) error{
	"busy": func(w *worker) error {
		return w.bench(func(n int) error {
			x := uint64(n)
			for range n {
				x = x*6364136223846793005 + 1442695040888963407
			}
			spun.Store(x)
			return nil
		})
	},
}}

var spun atomic.Uint64 // so that the compiler does not remove the work
