// Package lockfile locks segment files. It has two kinds of locks, and the kernel
// releases both when the process that holds them dies, and never before.
//
// The file lock is an exclusive lock on the whole file. A process holds it only while
// it creates, examines, grows or removes the file:
//
//   - [Create] makes a file and takes its file lock.
//   - [Lock] takes the file lock of an existing file, and waits for it; [TryLock]
//     does not wait.
//   - [File.Unlock] ends that; [File.Remove] removes the file and unlocks it.
//
// The slot locks of a file are numbered from 0. A process holds one for each of
// its attachments as long as the attachment lasts, so that every other process can
// ask whether the attachment is alive:
//
//   - [NewSlots] takes over an open file; [KindFor] says which [Kind] of slot locks
//     the creator of a segment uses.
//   - [Slots.Claim] locks a slot and [Slots.Release] unlocks it.
//   - [Slots.Held] asks whether a slot is locked, and [Slots.OthersHold] whether
//     another process has locked any.
//
// [Open], [Stat] and [Identify] look at a file without a lock. They do not prevent
// another process from removing it.
//
// Both kinds of locks belong to an open file description, not to a process: two
// goroutines exclude each other as two processes do, and a program started by
// os/exec inherits none. A child process between fork and exec holds what its
// parent held, so a lock can outlast a killed process by some milliseconds.
//
// Every process that may open a file can take its file lock and keep it, also one that
// may only read the file. That is why every wait for a file lock is bounded. Claiming a
// slot needs permission to write the file, or, with sibling files, to open these.
//
// # Unspecified
//
// The order in which waiters get the file lock. Network file systems that do not
// carry flock. The file lock of a process that closes another descriptor of the same
// file, on Solaris and AIX: there it is released. Calls of a File after Unlock or a
// successful Remove, and of Slots after Close.
//
// Errors are *fs.PathError: they name the operation and the file.
package lockfile
