//go:build unix

package stream_test

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"

	"qshm/keymap"
	"qshm/shm"
)

// truncate cuts the file of the stream of a test down to its first page, which the
// segment's own header is in. It skips the test where a fault does not tell its
// address, as under some versions of qemu: such a fault goes on as a panic.
func truncate(t testing.TB, dir string) {
	t.Helper()
	seg, err := shm.Attach("s", shm.Dir(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer seg.Close()
	if err := os.Truncate(filepath.Join(dir, keymap.Name("s")), 4096); err != nil {
		t.Fatal(err)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if fault, ok := recover().(interface{ Addr() uintptr }); !ok || fault.Addr() == 0 {
			t.Skip("faults do not tell where they are")
		}
	}()
	seg.Data()[seg.Size()-1]++
}
