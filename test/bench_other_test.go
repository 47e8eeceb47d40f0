//go:build !linux || !(amd64 || arm64 || riscv64 || loong64)

package test

import "testing"

// benchSystemLocks does nothing on this system.
func benchSystemLocks(*testing.B) {}
