package shm

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// sleepRole has goroutines sleep on a word until it has changed, where only a wake
// ends a sleep.
func sleepRole(key string, sleepers func(*header) (n int, word *uint32, value uint32)) error {
	onlyWakes()
	seg, err := Attach(key)
	if err != nil {
		return err
	}
	go func() { // the test gives up
		io.Copy(io.Discard, os.Stdin)
		os.Exit(1)
	}()
	n, word, value := sleepers(seg.head)
	fmt.Println("ready")
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() {
			for atomic.LoadUint32(word) == value {
				sleep(word, value, time.Hour)
			}
		})
	}
	wg.Wait()
	return seg.Detach()
}

func sleepOnTheLock(h *header) (int, *uint32, uint32) {
	return 1, h.lockHalf(), uint32(h.word.Or(waitersBit) | waitersBit)
}

func sleepOnTheBell(h *header) (int, *uint32, uint32) {
	return 3, h.bellWord(), h.bell.Or(bellArmed) | bellArmed
}

// wantEnd asks that the processes end, since they were woken.
func wantEnd(t *testing.T, sleepers []*exec.Cmd) {
	t.Helper()
	timeout := time.AfterFunc(30*time.Second, func() {
		for _, cmd := range sleepers {
			cmd.Process.Kill()
		}
	})
	defer timeout.Stop()
	for i, cmd := range sleepers {
		if err := cmd.Wait(); err != nil {
			t.Errorf("sleeper %d was not woken: %v", i, err)
		}
	}
}

// untilAsleep gives those who are about to sleep the time to do so: most often.
func untilAsleep() { time.Sleep(20 * time.Millisecond) }

func TestUnlockWakesAnotherProcess(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	lock(t, seg)
	sleeper := start(t, "sleep on the lock", key)
	untilAsleep()
	unlock(t, seg)
	wantEnd(t, []*exec.Cmd{sleeper})
}

func TestAChangeWakesAllProcesses(t *testing.T) {
	store(t)
	seg := create(t, key, 8)
	var sleepers []*exec.Cmd
	for range 3 {
		sleepers = append(sleepers, start(t, "sleep on the bell", key))
	}
	untilAsleep()
	seg.WriteAt([]byte("x"), 0)
	wantEnd(t, sleepers)
}
