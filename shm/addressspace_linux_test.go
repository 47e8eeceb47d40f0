package shm

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func init() {
	roles["address space"] = addressSpaceRole
}

// inUse counts the descriptors of this process and the mappings of segments.
func inUse() (fds, mappings int, err error) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return 0, 0, err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	return len(entries), strings.Count(string(maps), "qshm-test-"), err
}

// addressSpaceRole makes each call with no room for the data in the address space, and
// then with room.
func addressSpaceRole(string) error {
	const size = 1 << 29
	var status unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_AS, &status); err != nil {
		return err
	}
	pages := 0
	if text, err := os.ReadFile("/proc/self/statm"); err != nil {
		return err
	} else if _, err := fmt.Sscan(string(text), &pages); err != nil {
		return err
	}
	calls := map[string]func() (*Segment, error){
		"create": func() (*Segment, error) { return Create("mine", size, Sparse()) },
		"attach": func() (*Segment, error) { return Attach(key) },
		"read":   func() (*Segment, error) { return Attach(key, ReadOnly()) },
		"open": func() (*Segment, error) {
			seg, _, err := Open(key, 1)
			return seg, err
		},
	}
	fds, mapped, err := inUse()
	if err != nil {
		return err
	}
	counted := mappings.Load()
	limit := status
	limit.Cur = uint64(pages)*uint64(os.Getpagesize()) + size/2 // enough for the runtime, not for the data
	if err := unix.Setrlimit(unix.RLIMIT_AS, &limit); err != nil {
		return err
	}
	if room, err := unix.Mmap(-1, 0, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON); err == nil {
		fmt.Println("unlimited")
		return unix.Munmap(room)
	}
	for name, call := range calls {
		if _, err := call(); !errors.Is(err, ErrNoSpace) {
			return fmt.Errorf("%s without room: %v, want ErrNoSpace", name, err)
		}
	}
	if f, m, err := inUse(); err != nil || f != fds || m != mapped {
		return fmt.Errorf("%d descriptors and %d mappings before, %d and %d after: %v", fds, mapped, f, m, err)
	}
	runtime.GC() // unmaps headers
	for end := time.Now().Add(10 * time.Second); mappings.Load() != counted; runtime.GC() {
		if time.Now().After(end) {
			return fmt.Errorf("%d mappings are counted, and %d before the failures", mappings.Load(), counted)
		}
	}
	if info, err := Stat(key); err != nil || info.Attached != 1 {
		return fmt.Errorf("%d attached after failures, want 1: %v", info.Attached, err)
	}
	if _, err := Stat("mine"); !errors.Is(err, ErrNotExist) {
		return fmt.Errorf("stat of a segment that could not be mapped: %v", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_AS, &status); err != nil {
		return err
	}
	for name, call := range calls {
		seg, err := call()
		if err != nil {
			return fmt.Errorf("%s with room: %w", name, err)
		}
		if err := seg.Detach(); err != nil {
			return err
		}
	}
	fmt.Println("ok")
	return nil
}

func TestNoMoreAddressSpaceIsErrNoSpace(t *testing.T) {
	store(t)
	create(t, key, 1<<29, Sparse())
	out, err := command("address space", "").Output()
	if string(out) == "unlimited\n" {
		t.Skip("the limit on the address space is not kept here, as under qemu")
	}
	if err != nil || string(out) != "ok\n" {
		t.Errorf("%s, %v", out, err)
	}
}
