// Package test contains the tests that need several processes: one test for each
// promise of qshm/shm, and one for each way to break it.
//
// The tests read as scripts. A test starts processes (start), which run this test
// binary again, and tells them what to do:
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
// Each test has a store of its own. When a test ends, its processes end too, and
// after one Sweep the store must be empty.
//
// QSHM_TEST_EXEC names a command to start the processes with, for instance
// qemu-aarch64-static. Two build tags run the same tests on other code: qshmsiblings
// makes slot locks sibling files, and qshmfault adds the tests in which a process
// dies at each step of the library (DeathAt).
package test
