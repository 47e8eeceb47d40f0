//go:build !linux

// Command peers measures this library beside its peers. What it compares with (futexes, SysV semaphores, ...) is
// Linux's, so it runs there only.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "peers: runs on Linux only")
	os.Exit(1)
}
