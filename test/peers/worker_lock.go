//go:build linux

package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/gofrs/flock"
	"golang.org/x/sys/unix"
)

// plainLock is a lock without memory: flock(2), gofrs/flock or a SysV semaphore (worker_semop.go). It takes microseconds,
// so a call through this interface does not count.
type plainLock interface {
	Lock() error
	Unlock() error
	remove()
}

// lockOps are the operations of a plainLock.
func lockOps(open func(key string, create bool) (plainLock, error)) map[string]func(*worker) error {
	return map[string]func(*worker) error{
		"lock": func(w *worker) error {
			l, err := open(w.arg("key"), true)
			if err != nil {
				return err
			}
			defer l.remove()
			return w.bench(func(n int) error {
				for range n {
					if err := errors.Join(l.Lock(), l.Unlock()); err != nil {
						return err
					}
				}
				return nil
			})
		},
		"contend": func(w *worker) error {
			create := w.number("create", 0) == 1
			l, err := open(w.arg("key"), create)
			if err != nil {
				return err
			}
			if create {
				defer l.remove()
			}
			d, unmap, err := counters(w.arg("key"), create)
			if err != nil {
				return err
			}
			defer unmap()
			return w.contend(d, l.Lock, l.Unlock)
		},
	}
}

// turnsPerTiming is how many turns there are for each one that is timed, because reading the clock takes as long as a
// lock. The longest wait is that of all turns: it shows between two readings of the clock.
const turnsPerTiming = 16

// contend locks, counts in the eight counters of the short section, and unlocks, over and over until the time is up.
func (w *worker) contend(d *[8]uint64, lock, unlock func() error) error {
	turn := func() error {
		if err := lock(); err != nil {
			return err
		}
		section(d)
		return unlock()
	}
	return w.measure(func(begin int64) (figures, error) {
		end := begin + int64(w.number("ms", 1000))*1e6
		var h hist
		var n, longest int64
		t1 := w.now()
		for t1 < end {
			for range turnsPerTiming - 1 {
				if err := turn(); err != nil {
					return figures{}, err
				}
			}
			t0 := w.now()
			longest = max(longest, t0-t1)
			if err := lock(); err != nil {
				return figures{}, err
			}
			t1 = w.now()
			section(d)
			if err := unlock(); err != nil {
				return figures{}, err
			}
			h.add(t1 - t0)
			n += turnsPerTiming
		}
		if err := lock(); err != nil {
			return figures{}, err
		}
		total := d[7]
		err := unlock()
		return figures{N: n, NS: t1 - begin, Total: total, Max: max(h.max, longest), Hist: &h}, err
	})
}

// section is what the lock guards: counters in one cache line.
func section(d *[8]uint64) {
	for i := range d {
		d[i]++
	}
}

// lockPath is the path of a peer's file, in the directory that the runner removes.
func lockPath(key string) string { return filepath.Join(os.Getenv("QSHM_DIR"), key) }

type rawFlock struct {
	fd   int
	path string
}

var flockPeer = goPeer{"flock", "flock(2)", "", lockOps(func(key string, _ bool) (plainLock, error) {
	path := lockPath(key) + ".lock"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	return &rawFlock{fd, path}, err
})}

func (l *rawFlock) Lock() error {
	for {
		if err := unix.Flock(l.fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

func (l *rawFlock) Unlock() error { return unix.Flock(l.fd, unix.LOCK_UN) }
func (l *rawFlock) remove()       { _ = os.Remove(l.path) }

type gofrsFlock struct{ *flock.Flock }

var gofrsPeer = goPeer{"gofrs", "gofrs/flock", moduleVersion("github.com/gofrs/flock"), lockOps(func(key string, _ bool) (plainLock, error) {
	return gofrsFlock{flock.New(lockPath(key) + ".lock")}, nil
})}

func (l gofrsFlock) remove() { _ = os.Remove(l.Path()) }
