// Package lockfile holds what must survive a crash: locks that the kernel, and
// nobody else, releases when a process dies. They are taken through
// github.com/gofrs/flock, which only this package imports.
//
//   - A [Door] is the exclusive lock on a file that comes and goes. Whoever is
//     inside may change who is attached to the file, and may remove it.
//   - A [Presence] is a file that a process keeps locked for as long as it is
//     there. Anybody can ask [Alive], also from another container, where a
//     process number would mean nothing.
//
// [Open] and [LeadsTo] are for those who look at such files, and must not be in
// the way of who is about to remove them.
//
// Locks belong to the open file, not to the process: two goroutines exclude each
// other as two processes do, and a program started by exec inherits none.
//
// Unspecified: the order in which those who wait get in, and everything about
// network file systems that do not carry flock.
//
// Errors are *fs.PathError: they name the operation and the file.
package lockfile
