package shm

import (
	"fmt"
	"runtime/debug"
	"sync"

	"qshm/lockfile"
	"qshm/shm/internal/failpoint"
)

// Attachments: each has a slot in the header, and its process holds the lock of
// that slot. The kernel releases the lock when the process dies. A slot whose
// lock is held is alive; what the slot says is for people. The steps in brackets
// are those of test/models/lifetime.pml.

// process has the mappings of this process, by the identity of their files: one
// store under two paths is one store. It guards the number of their users, and
// serialises claiming and clearing slots. Nothing that waits for another process
// happens while it is locked.
var process struct {
	sync.Mutex
	mappings map[lockfile.ID]*mapping
}

// register adds an attachment of this process to m and claims its slot. If the
// process has mapped the same segment before, it uses that mapping, and m is
// closed; a segment that this call creates is new. register returns the mapping
// to use.
func (m *mapping) register(readOnly, creates bool) (*mapping, int, error) {
	process.Lock()
	defer process.Unlock()
	if first := process.mappings[m.id]; first != nil && !creates {
		m.close()
		m = first
	} else {
		if process.mappings == nil {
			process.mappings = map[lockfile.ID]*mapping{}
		}
		process.mappings[m.id] = m
	}
	i, err := m.claim(readOnly)
	m.users++
	if err != nil {
		m.dropUser()
	}
	return m, i, err
}

// dropUser takes one user away. The caller holds process.
func (m *mapping) dropUser() (last bool) {
	if m.users--; m.users > 0 {
		return false
	}
	if process.mappings[m.id] == m {
		delete(process.mappings, m.id)
	}
	return true
}

// claim takes a slot: a free one, or that of a dead process. The caller holds
// process, and the file lock unless this process has another attachment.
func (m *mapping) claim(readOnly bool) (i int, err error) {
	defer m.reportFault(debug.SetPanicOnFault(true), &err)
	for _, taken := range []bool{false, true} {
		for i := range m.slot {
			if m.taken(i) != taken {
				continue
			}
			failpoint.At("claim")
			ok, err := m.locks.Claim(i) // [claim]
			if err != nil {
				return 0, err
			}
			if ok {
				m.recover(i)
				m.publish(i, readOnly)
				return i, nil
			}
		}
	}
	return 0, fmt.Errorf("%w: all %d attachments are taken; create the segment with MaxAttachments", ErrNoSpace, m.slots)
}

func (m *mapping) taken(i int) bool { return m.slot[i].Load()&slotTaken != 0 }

// recover clears what a dead process has left in slot i, whose lock the caller
// holds: first the lock word, whatever the slot says. If the caller dies, the next
// process to claim the slot goes on.
func (m *mapping) recover(i int) {
	failpoint.At("recover_word")
	m.abandonLock(i) // [recover_word]
	if w := m.slot[i].Load(); w&slotTaken != 0 {
		// The dead process may have had the lock without moving the version.
		for l := m.head.word.Load(); !m.head.word.CompareAndSwap(l, countDetach(l)); l = m.head.word.Load() {
		}
		m.clear(i, w) // [recover_slot] [recover_refs]
	}
}

// publish writes slot i, whose lock the caller holds.
//
// The reference count is raised before the slot is written, and lowered after the
// slot is cleared. So it is never too low; after a crash it may be too high. It is
// for people: the slot locks say who is alive.
func (m *mapping) publish(i int, readOnly bool) {
	failpoint.At("refs_up")
	m.head.refs.Add(1) // [refs_up]
	failpoint.At("publish")
	w := m.slot[i].Load()&^(1<<slotSerial-1) + 1<<slotSerial | slotTaken | uint64(pid)
	if readOnly {
		w |= slotReadOnly
	}
	m.slot[i].Store(w) // [publish]
	failpoint.At("published")
}

// clear empties slot i, which holds w and whose lock the caller holds.
func (m *mapping) clear(i int, w uint64) {
	failpoint.At("clear_slot")
	m.slot[i].Store(w &^ (1<<slotSerial - 1)) // [clear_slot]
	failpoint.At("refs_down")
	m.head.refs.Add(^uint32(0)) // [refs_down]
}

// leave ends the attachment in slot i: the slot is cleared before its lock is
// released. It reports whether that was the last attachment of this process.
func (m *mapping) leave(i int) (last bool) {
	process.Lock()
	defer process.Unlock()
	m.clearOwn(i)
	failpoint.At("release_slot")
	m.locks.Release(i) // [release_slot]
	return m.dropUser()
}

func (m *mapping) clearOwn(i int) {
	defer m.ignoreFault(debug.SetPanicOnFault(true))
	m.clear(i, m.slot[i].Load())
}

// inUse reports whether another process is attached, or this one by another
// mapping. It is one question to the kernel, whatever the number of attachments,
// and asked through the descriptor: no path is involved.
func (m *mapping) inUse() bool {
	defer m.ignoreFault(debug.SetPanicOnFault(true))
	failpoint.At("ask")
	return m.locks.OthersHold(m.taken) // [ask]
}

// takeOver takes the lock word w for the attachment owner, if the process that w
// names has died. A word that names no slot was not written by this library.
//
// If the slot is not held, its process has died or detached since w was read. A
// process that has detached has changed the word before it released the slot, and
// one that claims the slot of a dead process changes the word first (recover): so as
// long as the word is w, it names the dead process.
func (m *mapping) takeOver(w, owner uint64) bool {
	failpoint.At("probe")
	if w&ownerMask == 0 || m.locks.Held(ownerSlot(w)) { // [probe]
		return false
	}
	failpoint.At("take_over")
	if !m.head.word.CompareAndSwap(w, (w+versionOne)&^(ownerMask|starvingBit)|owner|abandonedBit|waitersBit) { // [take_over]
		return false
	}
	failpoint.At("taken_over")
	m.signal()
	return true
}

// abandonLock takes the lock away from the owner in slot i, if it is the owner, and
// leaves it free and abandoned. The caller holds the lock of the slot.
func (m *mapping) abandonLock(i int) {
	for w := m.head.word.Load(); ownerSlot(w) == i && !m.abandon(w); w = m.head.word.Load() {
	}
}

// abandonIfDead does so if the process that w names has died: see takeOver.
func (m *mapping) abandonIfDead(w uint64) {
	if w&ownerMask != 0 && !m.locks.Held(ownerSlot(w)) {
		m.abandon(w)
	}
}

func (m *mapping) abandon(w uint64) bool {
	if !m.head.word.CompareAndSwap(w, (w+versionOne)&^(ownerMask|waitersBit)|abandonedBit) {
		return false
	}
	failpoint.At("word_recovered")
	if w&waitersBit != 0 {
		m.lockWord.Wake()
	}
	m.signal()
	return true
}
