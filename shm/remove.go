package shm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync/atomic"

	"qshm/keymap"
	"qshm/lockfile"
	"qshm/shm/internal/failpoint"
)

// Removing segments, as ipcrm does, and sweeping garbage.

// Remove takes the segment away from its key: the key is free at once, and attached
// processes keep the memory and the lock until they detach. Garbage is destroyed.
//
// Errors: ErrKey, ErrNotExist, ErrPermission, ErrCorrupt, ErrBusy, ErrNoSpace if
// the process has no descriptor or mapping left.
func Remove(key string, opts ...Option) error {
	t, err := locate("remove", key, opts, false)
	if err != nil {
		return err
	}
	f, err := lockfile.Lock(t.ctx, t.path)
	if err == nil {
		_, err = t.clear(f, true)
	}
	if errors.Is(err, fs.ErrNotExist) {
		err = t.notExist("no process has created it in %s")
	}
	if err != nil {
		return t.fail(err)
	}
	return nil
}

// clear destroys the garbage in the file whose lock f is held; with force it removes
// a live segment too. It releases f, and reports whether the file is gone.
func (t *target) clear(f *lockfile.File, force bool) (gone bool, err error) {
	m, half, err := openMapping(f, t.key, true)
	if half {
		return true, t.discard(f, true)
	}
	if err != nil {
		f.Unlock()
		return false, err
	}
	used := m.inUse()
	switch state := m.state(); {
	case !used || state == stateDead:
		return true, t.destroy(m, f, !used)
	case !force && state == stateLive:
		return false, t.lookAgain(m, f)
	}
	// If this process dies between the two, the next one finds the state removed, and
	// unlinks.
	failpoint.At("removed")
	m.setState(stateRemoved) // [removed]
	failpoint.At("unlink")
	if err = f.Remove(); err != nil { // [unlink]
		m.setState(stateLive)
		f.Unlock()
	}
	m.close()
	return err == nil, err
}

// Sweep destroys the garbage of a store, and returns what the segments were. It
// waits for no process: a file whose lock is held is not garbage.
//
// There is no need to call it: each Create and Attach destroys the garbage in its
// way, and each Create some of the rest.
//
// Errors: ErrPermission, ErrNoSpace if the process has no descriptor left.
func Sweep(opts ...Option) ([]Info, error) {
	dir, names, err := readStore("sweep", opts)
	if err != nil {
		return nil, err
	}
	swept := sweepNames(dir, names, true)
	if len(swept) > 0 {
		if _, names, err = readStore("sweep", opts); err != nil {
			return swept, err
		}
	}
	lockfile.RemoveOrphans(dir, names)
	return swept, nil
}

// sweep destroys one segment, if it is garbage.
func sweep(dir, name string, abandoned bool) (Info, bool) {
	if !keymap.IsName(name) {
		return Info{}, false
	}
	t := target{op: "sweep", dir: dir, path: filepath.Join(dir, name)}
	info, err := inspect(t.path, "")
	if err != nil || info.Status != StatusDead || info.Abandoned && info.Size <= smallSize && !abandoned {
		return Info{}, false
	}
	f, err := lockfile.TryLock(t.path)
	if err != nil {
		return Info{}, false
	}
	gone, err := t.clear(f, false)
	return info, gone && err == nil && !t.adoptEmpty
}

// How many files of a store a Create looks at, and how often one does: the first of
// a process, and then now and again.
const (
	sweepFiles = 64
	sweepEvery = 16
	smallSize  = 4096
)

var creates atomic.Uint32

// sweepSome destroys garbage among the first files of a store, so that garbage under
// keys that are not used again does not pile up. Memory file systems list the newest
// files first.
func sweepSome(dir string) {
	if creates.Add(1)%sweepEvery != 1 {
		return
	}
	d, err := os.Open(dir)
	if err != nil {
		return
	}
	defer d.Close()
	names, _ := d.Readdirnames(sweepFiles)
	sweepNames(dir, names, false)
}

// sweepNames sweeps files of a store. Unless all is set, it leaves a small segment whose
// lock was abandoned to the next process with the same key, which learns of it by
// Replaced: segments that are there for their locks are small.
func sweepNames(dir string, names []string, all bool) (swept []Info) {
	if dir == "" { // there is no store
		return nil
	}
	for _, name := range names {
		if info, ok := sweep(dir, name, all); ok {
			swept = append(swept, info)
		}
	}
	lockfile.RemoveAside(dir)
	return swept
}
