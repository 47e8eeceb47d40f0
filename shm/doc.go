// Package shm lets processes on one machine share memory by key.
//
// One process creates a segment under a key, others attach to it; everyone
// locks, uses the memory, unlocks, and detaches. With the last detach the memory
// is gone. If processes die instead, at any point, those who come next find
// things as if they had detached in time.
//
//	seg, created, err := shm.Open("frames", 1<<20)
//	if err != nil {
//		return err
//	}
//	defer seg.Close()
//	err = seg.Update(func(data []byte) error {
//		copy(data, "hello")
//		return nil
//	})
//
// # How it works
//
// A segment is a file in a directory, the store: /dev/shm/qshm-<uid>, or what
// $QSHM_DIR or [Dir] name. The key gives the file its name (package keymap). The
// file begins with a header (header.go, FORMAT.md), and the data follow; both are
// mapped.
//
// Each attachment has a slot in the header, with the token of its process. A
// process that has attachments holds a kernel lock on a file of that name, its
// presence (package lockfile). Whoever wants to know whether a process lives asks
// for that lock: process numbers mean nothing in another container, and get
// reused; a lock ends with its process.
//
// Creating, attaching and destroying (lifetime.go, attachment.go) happen inside
// the door: a kernel lock on the segment's file itself. A segment whose processes
// are all dead is garbage; whoever comes upon it destroys it first.
//
// The lock of a segment (lock.go) is one word in the header. Free to mine is one
// compare-and-swap; who has to wait sleeps on the word, and looks now and then
// whether its owner lives. The upper half of the word is the version, which
// counts changes (version.go): one can wait for it to move, instead of polling,
// and make copies that are consistent without stopping a writer (snapshot.go).
//
// # What is not promised
//
// The lock is fair in the long run, not first come, first served. Memory is not
// kept over a reboot. Processes must be on one machine and see the same
// directory; between machines, use a message system. On systems other than
// Linux and Windows, waiting is looking again, up to 500 times a second; so it is
// on Windows between processes of different sessions or rights, in the end each
// 25 ms. Who may write the store's files may write anything there: a segment is as
// trustworthy as those who can open it. If somebody truncates the file, at whatever
// moment, calls report it or go on. Two things fault: an access to the data outside
// of View and Update, and, where nothing is left of the file, what does no more
// than look at the lock word, as Lock does: see [Segment.Data].
package shm
