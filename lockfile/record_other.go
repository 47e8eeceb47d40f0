//go:build unix && !linux

// Systems without usable record locks: on macOS they conflict with file locks, on
// illumos and Solaris they cover whole files, and the BSDs do not have them.

package lockfile

import "os"

const recordQuestionsLock = false

func haveRecordLocks(*os.File) bool { return false }

func lockRecord(*os.File, int) (bool, error) { panic("unreachable") }
func unlockRecord(*os.File, int)             { panic("unreachable") }
func recordsLocked(*os.File, int, int) bool  { panic("unreachable") }
