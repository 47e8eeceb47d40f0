// Package shm lets processes on one machine share memory by key.
//
// A process creates a segment under a key, others attach to it; all lock, use the
// memory, unlock, and detach. With the last detach the memory is gone. If processes
// die instead, at any point, the next call finds things as if they had detached in
// time.
//
//	seg, created, err := shm.Open("counter", 8)
//	if err != nil {
//		return err
//	}
//	defer seg.Close()
//	err = seg.Update(func(data []byte) error {
//		data[0]++
//		return nil
//	})
//
// # Which call when
//
//   - Any process may start first: [Open], with [Init] if the memory does not begin
//     as zeros. One process owns the segment: it calls [Create], the others [Attach].
//   - Read and write: [Segment.View] and [Segment.Update], which lock, unlock, and
//     turn missing memory into errors. [Segment.ReadAt] and [Segment.WriteAt] for
//     bytes, [Load] and [Store] for a value of a Go type.
//   - Read without delaying a writer: [Segment.Snapshot], [Segment.ReadAt] and [Load].
//     Each is consistent in itself.
//   - Wait for a change: [Segment.Wait], or [Segment.Changes] in a loop. Wait for a
//     condition and change the memory: [Segment.UpdateWhen], which replaces condition
//     variables and semaphores.
//   - A time-out: [Segment.LockContext], UpdateWhen and Wait take a context; Create,
//     Attach, Open and Remove take [WithContext].
//   - More memory: [Segment.Grow]. Every attachment sees it at its next call.
//   - In place, without a copy: [Segment.Data], [Value] and [Slice], with the lock
//     held, or by atomic operations. Data begin on a page boundary.
//   - Announce a change that was made by atomic operations: [Segment.Notify].
//   - Find out whether the owner of a part of the memory has died: [Segment.ID] and
//     [Segment.Alive].
//   - Messages, jobs and frames: package qshm/shm/stream.
//   - Look and clean up: [Stat], [List], [Remove], [Sweep]. A program need not sweep:
//     Create and Attach destroy the garbage in their way.
//   - A program that must not start twice: package [qshm/shm/single].
//
// Inside View and Update, do not call what takes the segment's lock: Lock, View,
// Update, UpdateWhen, WriteAt, Store, and Snapshot, ReadAt and Load, which may.
// Detach is fine, and so are Grow, Info, Version and Abandoned. A data slice
// is as long as the segment was when the call began.
//
// After a crash in the middle of an Update, the next owner of the lock is told by
// [Segment.Abandoned]; it repairs the data or starts anew. [Segment.Replaced] tells
// what a Create or Open found left by dead processes.
//
// # Where the memory is
//
// A segment is a file in a directory, the store: [Dir], else $QSHM_DIR, else
// /dev/shm/qshm-<uid>, else, where /dev/shm does not exist or cannot be written,
// qshm-<uid> in the temp directory. Package keymap turns the key into the file's
// name. Processes share by key if they use the same directory: in containers, a
// volume. They need no IPC or PID namespace in common.
//
// A store that a group or several users share is a directory that they may all
// write, with [Perm] at creation. Every user who may write a segment's file can do
// anything to the segment; a user who may read it can read the data and delay, within
// bounds, calls that create, attach and detach.
//
// Some systems remove files that they think are left over: systemd-logind with
// RemoveIPC=yes at the end of a user's last session, and cleaners of the temp
// directory. Attached processes go on then, with the memory and the lock; a newcomer
// makes a new segment, and the two do not meet.
//
// # How it works
//
// The file begins with a header (header.go, FORMAT.md), and the data follow; both
// are mapped. Each attachment has a slot in the header, and its process holds the
// kernel's lock of that slot, a record lock on the segment's file: package lockfile.
// The kernel releases it when the process dies, never before. So whether a process
// lives is asked of the kernel, through the open file: process numbers and paths
// mean nothing in another container or chroot. A process that changes its user after
// attaching stays attached, but may not be allowed to remove the file with its last
// detach; then the next call of another process does.
//
// Creating, attaching, growing and destroying (open.go, slots.go, grow.go) happen
// with the file lock held. A segment with no live process is garbage; the next call
// that finds it destroys it.
//
// The segment's lock (lock.go) is one word in the header. Its upper half is the
// version, which counts changes: a process can wait for it to move (wait.go), and
// make consistent copies without stopping a writer (snapshot.go).
//
// # What is not promised
//
// The lock is fair in the long run, not first come, first served. Memory is not kept
// over a reboot. Processes must be on one machine and see the same directory; between
// machines, use a message broker. On systems other than Linux and Windows, waiting
// polls, up to 500 times a second; on Windows, processes of different sessions or
// rights poll each other's changes each 25 ms. A segment is as trustworthy as the
// users who can write it.
//
// A process that forks and does not execute another program (not a Go program, but
// Python's multiprocessing does) passes its slot to the child, and counts as alive
// until both have ended. While the kernel writes a core file, the process counts as
// alive.
//
// If another program truncates a segment's file, calls report it or go on. Two
// things fault: an access to the data outside View, Update and the like, and, where
// nothing is left of the file, a call that does no more than read the header: see
// [Segment.Data].
package shm
