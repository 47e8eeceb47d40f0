// The portable part of slot locks: which kind they are, and which slots this process
// holds.

package lockfile

import (
	"errors"
	"io/fs"
	"os"
	"sync"
	"time"
)

// A Kind is a way to lock slots. The numbers are part of the file format.
type Kind uint32

const (
	// RecordLocks are locks on ranges of bytes of the segment file itself, far beyond
	// its end: open file description locks on Linux, LockFileEx on Windows.
	RecordLocks Kind = 1

	// SiblingFiles are file locks on a file of its own for each slot, next to the
	// segment file, for systems whose record locks belong to a process or conflict
	// with file locks. They are found by path: in a process for which the path does not
	// lead to the store any more, the slots of other processes count as held.
	SiblingFiles Kind = 2
)

// KindFor returns the kind of slot locks that the creator of a segment uses: record
// locks if this system has them, else sibling files. It asks the system by means of
// file, once for each process. The build tag qshmsiblings makes it return
// SiblingFiles on every system.
func KindFor(file *os.File) Kind {
	if !forceSiblings && haveRecordLocks(file) {
		return RecordLocks
	}
	return SiblingFiles
}

// Slots are the slot locks of one open segment file, as this process sees them. They
// are safe for use by several goroutines.
type Slots struct {
	file *os.File
	kind Kind
	n    int
	id   uint64

	mu sync.Mutex
	// own has the slots that this process holds, and their sibling files. The kernel
	// does not show a process its own record locks, and grants them again.
	own map[int]*File
}

// NewSlots returns the n slot locks of a segment file. The Slots close the file; if
// NewSlots fails, the caller does. To claim slots, the file must be open for writing;
// to ask, for reading.
//
// The id is a random number that distinguishes the segment from others that have had
// the same path. Sibling files are named after it.
//
// Errors: errors.ErrUnsupported if this system does not have that kind of slot locks.
func NewSlots(file *os.File, kind Kind, n int, id uint64) (*Slots, error) {
	if kind != SiblingFiles && (kind != RecordLocks || !haveRecordLocks(file)) {
		return nil, &fs.PathError{Op: "lock slots", Path: file.Name(), Err: errors.ErrUnsupported}
	}
	return &Slots{file: file, kind: kind, n: n, id: id, own: make(map[int]*File)}, nil
}

// Claim locks slot i and reports whether it did. It reports false if another process
// holds the slot, or this one already does. It also reports false while a process that
// may only read the file keeps a shared lock on the slot.
func (s *Slots) Claim(i int) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i < 0 || i >= s.n {
		return false, &fs.PathError{Op: "lock slot", Path: s.file.Name(), Err: fs.ErrInvalid}
	}
	if _, own := s.own[i]; own {
		return false, nil
	}
	sibling, ok, err := s.lock(i)
	if s.kind == SiblingFiles || recordQuestionsLock {
		// A question is a shared lock for a moment. If that is what the claim met, no
		// process holds the slot, and trying again helps. It does not help against a
		// process that may read the file and keeps a shared lock.
		pause := firstPoll
		for tries := 1; !ok && err == nil && tries < claimTries && !s.lockedByOther(i); tries++ {
			time.Sleep(pause)
			pause = min(2*pause, lastClaimPause)
			sibling, ok, err = s.lock(i)
		}
	}
	if ok {
		s.own[i] = sibling
	}
	return ok, err
}

const (
	claimTries     = 20 // in about 20 ms
	lastClaimPause = time.Millisecond
)

func (s *Slots) lock(i int) (sibling *File, ok bool, err error) {
	if s.kind == RecordLocks {
		ok, err = lockRecord(s.file, i)
		return nil, ok, err
	}
	return s.lockSibling(i)
}

// lockedByOther reports whether another process holds slot i, or whether that cannot
// be determined.
func (s *Slots) lockedByOther(i int) bool {
	if s.kind == RecordLocks {
		return recordsLocked(s.file, i, 1)
	}
	return s.siblingLocked(i)
}

// Release unlocks slot i. It does nothing if this process does not hold the slot.
func (s *Slots) Release(i int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.release(i)
}

func (s *Slots) release(i int) {
	sibling, own := s.own[i]
	if !own {
		return
	}
	delete(s.own, i)
	if s.kind == RecordLocks {
		unlockRecord(s.file, i)
	} else {
		sibling.Unlock()
	}
}

// Held reports whether this process or another holds slot i. If that cannot be
// determined, the slot counts as held.
func (s *Slots) Held(i int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if i < 0 || i >= s.n {
		return false
	}
	_, own := s.own[i]
	return own || s.lockedByOther(i)
}

// OthersHold reports whether another process holds any slot. If that cannot be
// determined, it reports true.
//
// Record locks are asked in one question, whatever the number of slots, and taken is
// not called. Sibling files are asked one after another, for the slots that taken
// reports true for: a slot that is claimed meanwhile can be missed, unless the file
// lock is held and every claim holds it too.
func (s *Slots) OthersHold(taken func(i int) bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.kind == RecordLocks {
		return recordsLocked(s.file, 0, s.n)
	}
	for i := range s.n {
		if _, own := s.own[i]; !own && taken(i) && s.siblingLocked(i) {
			return true
		}
	}
	return false
}

// Atomic reports whether OthersHold is one question. If so, a process that holds a
// slot may claim another one without the file lock.
func (s *Slots) Atomic() bool { return s.kind == RecordLocks }

// Close releases the slots that this process holds, and closes the file.
func (s *Slots) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	// Closing the file is not enough: a mapping can keep its locks.
	for i := range s.own {
		s.release(i)
	}
	s.file.Close()
}
