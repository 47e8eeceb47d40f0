// Sibling files: slot locks where record locks cannot be used.

package lockfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"
)

// siblingPath returns the path of slot i's sibling file. The id is part of it, because
// the attachments of a removed segment keep theirs while a successor has its path.
func (s *Slots) siblingPath(i int) string { return siblingName(s.file.Name(), s.id, uint64(i)) }

func siblingName(segment string, id, slot uint64) string {
	return fmt.Sprintf("%s.%016x.s%d", segment, id, slot)
}

// segmentOf returns the name of the segment file that a sibling file belongs to.
func segmentOf(name string) (segment string, ok bool) {
	rest, slot := cutExt(name)
	segment, id := cutExt(rest)
	i, err := strconv.ParseUint(strings.TrimPrefix(slot, ".s"), 10, 32)
	x, iderr := strconv.ParseUint(strings.TrimPrefix(id, "."), 16, 64)
	return segment, err == nil && iderr == nil && name == siblingName(segment, x, i) &&
		filepath.Ext(segment) == ".qshm" // keymap.Suffix
}

func cutExt(name string) (rest, ext string) {
	ext = filepath.Ext(name)
	return strings.TrimSuffix(name, ext), ext
}

// lockSibling locks slot i's sibling file, which it makes if it is missing.
func (s *Slots) lockSibling(i int) (*File, bool, error) {
	path := s.siblingPath(i)
	for {
		f, err := TryLock(path)
		if errors.Is(err, fs.ErrNotExist) {
			f, err = s.createSibling(path)
			if errors.Is(err, fs.ErrExist) {
				continue
			}
		}
		if errors.Is(err, ErrLocked) {
			return nil, false, nil
		}
		return f, err == nil, err
	}
}

// createSibling creates a sibling file with the permissions of the segment file:
// every process that can attach must be able to ask.
func (s *Slots) createSibling(path string) (*File, error) {
	info, err := s.file.Stat()
	if err != nil {
		return nil, err
	}
	perm := info.Mode().Perm()
	f, err := Create(path, perm)
	if err != nil || f.info.Mode().Perm() == perm {
		return f, err
	}
	// The umask has removed some. In a store that others may write, path can lead to
	// another file by now.
	if file, err := Open(path, os.O_RDONLY); err == nil {
		if now, err := file.Stat(); err == nil && os.SameFile(now, f.info) {
			file.Chmod(perm)
		}
		file.Close()
	}
	return f, nil
}

var openQuestion = flock.SetFlag(os.O_RDONLY | openFlags)

// siblingLocked asks by a shared lock, so that two questions do not take each other
// for the holder of the slot.
func (s *Slots) siblingLocked(i int) bool {
	lock := flock.New(s.siblingPath(i), openQuestion)
	for {
		ok, err := lock.TryRLock()
		switch {
		case ok:
			unlock(lock)
			return false
		case errors.Is(err, syscall.EINTR):
		case errors.Is(err, fs.ErrNotExist):
			// The slot has never been claimed, or the path does not lead to the store
			// any more: then the sibling files of this process are not there either.
			return !s.ownLinked()
		default:
			return true
		}
	}
}

// ownLinked reports whether the slots that this process holds have their sibling
// files at their paths.
func (s *Slots) ownLinked() bool {
	for _, f := range s.own {
		if _, err := os.Lstat(f.Path()); err != nil {
			return false
		}
	}
	return true
}

// RemoveSiblings removes the sibling files that are not locked, of this segment and of
// those that had the same path before it. The caller has destroyed the segment. It
// does nothing for record locks.
func (s *Slots) RemoveSiblings() {
	if s.kind != SiblingFiles {
		return
	}
	RemoveSiblings(s.file.Name())
}

// RemoveSiblings does so for the segment file at path, whose header says nothing of
// its slots yet: its creator has died.
func RemoveSiblings(path string) {
	dir, base := filepath.Split(path)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		if segment, ok := segmentOf(e.Name()); ok && segment == base {
			removeSibling(filepath.Join(dir, e.Name()))
		}
	}
}

// RemoveOrphans removes the sibling files among names, the names of the files in dir,
// whose segment file is not among them and that are not locked.
func RemoveOrphans(dir string, names []string) {
	present := make(map[string]bool, len(names))
	for _, name := range names {
		present[name] = true
	}
	for _, name := range names {
		if segment, ok := segmentOf(name); ok && !present[segment] {
			removeSibling(filepath.Join(dir, name))
		}
	}
}

// removeSibling removes a sibling file with its lock held, so that a process that is
// about to lock it finds it unlinked, and makes another one.
func removeSibling(path string) {
	failpoint("remove_sibling")
	if f, err := TryLock(path); err == nil && f.Remove() != nil {
		f.Unlock()
	}
}
