// Package test contains the tests that need several processes. The files, by their names:
//
//	conformance      CONFORMANCE.md line by line: what QSharedMemory promises and gets wrong
//	lifetime, init, grow, lock, wait, single, stream
//	                 one test for each promise of the packages qshm/shm, single and stream
//	sequence         random calls, compared with a model
//	storm            processes that are killed or stopped at random instants
//	fault            a process dies, or a file is truncated, at each step of the library
//	hostile          other users, other programs, and a store that changes under its users
//	resources        without memory, inodes, descriptors or permissions
//	clock            the system's clock is set meanwhile
//	cost, bench      what calls cost: counted, and timed
//	docs             links, programs, transcripts, names and examples in the texts
//	harness          how a test starts, calls, stops and kills processes
//
// The directories:
//
//	languages        programs in C and Python that use a segment beside Go
//	models           models of the protocols, for spin
//	peers            measures this library beside others
//	platforms        runs the tests in containers, under qemu and under wine
//
// The tests read as scripts. A test starts processes, which run this test binary again, and
// tells them what to call:
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
// Each test has a store of its own. When a test ends, its processes end too, and after one
// Sweep the store must be empty.
//
// QSHM_TEST_EXEC names a command to start the processes with, for instance
// qemu-aarch64-static. Two build tags run the tests on other code: with qshmsiblings, slot
// locks are sibling files; with qshmfault, the library has the fail points that the fault
// tests need.
package test
