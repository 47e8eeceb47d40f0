// Package test holds what can only be seen with several processes: each promise
// of qshm/shm is one test here, and so is each way to break it.
//
// The tests read as scripts. A test starts processes (start), which are this
// test binary running itself again, and tells them what to do:
//
//	st := newStore(t)
//	a, b := st.start(), st.start()
//	mine := a.create("k", 64)
//	theirs := b.attach("k")
//	theirs.lock()
//	b.kill()
//	mine.lock()
//	mine.abandoned() // true
//
// Each test has a store of its own. When it ends, so do all its processes, and
// then one look by somebody else must leave the store empty.
//
// QSHM_TEST_EXEC holds a command that processes are started with, for instance
// qemu-aarch64-static.
package test
