package futex

import (
	"os"
	"os/signal"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// eachWay runs a test with futex_waitv, and as where the system has none.
func eachWay(t *testing.T, test func(*testing.T)) {
	has := hasWaitv
	t.Run("waitv", func(t *testing.T) {
		if !has() {
			t.Skip("this system has no futex_waitv")
		}
		test(t)
	})
	t.Run("bits", func(t *testing.T) {
		hasWaitv = func() bool { return false }
		defer func() { hasWaitv = has }()
		test(t)
	})
}

// otherWay tells another process how to sleep, and setWay is what that does
// with it: the same way, with another bit.
func otherWay() string {
	if hasWaitv() {
		return ""
	}
	return strconv.Itoa(int(ownBit<<1 | ownBit>>31))
}

func setWay(way string) {
	if way != "" {
		bit, _ := strconv.Atoi(way)
		ownBit = uint32(bit)
		hasWaitv = func() bool { return false }
	}
}

const polls = false

// onlyWakes makes sure that a sleep ends with a wake or not at all, which is so
// here.
func onlyWakes(*testing.T) {}

func setOnlyWakes() {}

// A signal that Go handles ends a system call: a sleep begins again, and no
// wake is lost.
func TestStormOfSignals(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, unix.SIGUSR1)
		defer signal.Stop(signals)
		f := newFile(t)
		w := f.word(0, 1)
		defer w.Close()
		const n = 500
		other := f.start(t, "turns", n)
		stop, stopped := make(chan bool), make(chan bool)
		var sent atomic.Int64
		go func() {
			defer close(stopped)
			for {
				select {
				case <-stop:
					return
				default:
					for _, pid := range []int{os.Getpid(), other.Process.Pid} { // SIGURG is the runtime's own
						unix.Kill(pid, unix.SIGURG)
						sent.Add(1)
					}
					tasks, _ := os.ReadDir("/proc/self/task")
					for _, task := range tasks {
						tid, _ := strconv.Atoi(task.Name())
						unix.Tgkill(os.Getpid(), tid, unix.SIGUSR1)
						sent.Add(1)
					}
				}
			}
		}()
		done := make(chan int)
		go func() {
			takeTurns(w, 0, n)
			done <- 0
		}()
		if line := other.line(t); line != "done" {
			t.Error(line)
		}
		next(t, done)
		close(stop)
		<-stopped
		t.Log(sent.Load(), "signals")
	})
}

// The word of a read-only mapping can be slept on and woken, too.
func TestReadOnlyMapping(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		file, err := os.Open(f.path)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		data, err := unix.Mmap(int(file.Fd()), 0, 4096, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(data)
		writer, reader := f.word(0, 1), newWord(t, (*uint32)(unsafe.Pointer(&data[0])), 0, 1)
		for _, waker := range []*Word{writer, reader} {
			atomic.StoreUint32(writer.addr, 0)
			ended := sleepers([]*Word{reader})
			atomic.StoreUint32(writer.addr, 1)
			waker.Wake()
			next(t, ended)
		}
	})
}

// Another process may truncate the file: whoever reads the word next gets the
// fault, Sleep only returns.
func TestTruncatedFile(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		w := f.word(0, 1)
		if err := os.Truncate(f.path, 0); err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.Sleep(w.Ticket(), 0, long)
		w.Wake()
		w.Interrupt()
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}
