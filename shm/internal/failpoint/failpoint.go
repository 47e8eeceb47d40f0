// Package failpoint marks the steps between which a crash could leave a segment
// half done, so that tests can let a process die at each of them.
//
// It does nothing without the build tag qshmfault. With it, the environment
// says what happens:
//
//	QSHM_FAULT=step:n         the process is killed at the step, the nth time it gets there
//	QSHM_FAULT_CUT=size:path  instead, the file is truncated to the size, and the process goes on
//	QSHM_FAULT_TRACE=path     each step is appended to the file, one a line
package failpoint
