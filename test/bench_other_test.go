//go:build !linux || !(amd64 || arm64 || riscv64 || loong64)

package test

import "testing"

// benchSystemLocks has nothing to compare with here.
func benchSystemLocks(*testing.B) {}
