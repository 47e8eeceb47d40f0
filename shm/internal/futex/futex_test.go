package futex

import (
	"bufio"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"github.com/edsrzf/mmap-go"
)

// Several Words of one process, at one address, are like those of several
// processes: each has a sleeper of its own.

const long = time.Hour // longer than any test

// newWord returns a Word at addr.
func newWord(t testing.TB, addr *uint32, id uint64, wakes int) *Word {
	w := new(Word)
	w.Init(addr, id, "word", wakes)
	t.Cleanup(w.Close)
	return w
}

// newWords returns n Words at one address.
func newWords(t testing.TB, n, wakes int) (words []*Word) {
	addr, id := new(uint32), rand.Uint64()
	for range n {
		words = append(words, newWord(t, addr, id, wakes))
	}
	return words
}

// sleepers lets a goroutine sleep on each Word until the word changes or the
// goroutine is interrupted. The channel gets the number of each one that has
// ended.
func sleepers(words []*Word) <-chan int {
	ended := make(chan int, len(words))
	for i, w := range words {
		ticket := w.Ticket()
		go func() {
			for atomic.LoadUint32(w.addr) == 0 && w.Ticket() == ticket {
				w.Sleep(ticket, 0, math.MaxInt64)
			}
			ended <- i
		}()
		untilAsleep(w)
	}
	return ended
}

// untilAsleep waits until a goroutine sleeps on w, most probably.
func untilAsleep(w *Word) {
	for w.sleeps.Load()%2 == 0 {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(10 * time.Millisecond)
}

// next returns the number of the next sleeper whose sleep ends.
func next(t *testing.T, ended <-chan int) int {
	t.Helper()
	select {
	case i := <-ended:
		return i
	case <-time.After(30 * time.Second):
		t.Fatal("no sleep ends")
		return -1
	}
}

// wantNone reports an error if another sleep ends soon.
func wantNone(t *testing.T, ended <-chan int) {
	t.Helper()
	select {
	case i := <-ended:
		t.Errorf("the sleep of %d ends too", i)
	case <-time.After(30 * time.Millisecond):
	}
}

func TestSleepOnAnotherValue(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		start := time.Now()
		w.Sleep(w.Ticket(), 1, long)
		if d := time.Since(start); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
	})
}

func TestSleepTimesOut(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, time.Microsecond, 100 * time.Microsecond, time.Millisecond, 30 * time.Millisecond} {
			start := time.Now()
			for range 3 { // once might be early
				w.Sleep(w.Ticket(), 0, d)
			}
			if took := time.Since(start); took < d || took > 10*time.Second {
				t.Errorf("three times %v took %v", d, took)
			}
		}
	})
}

func TestWakeWakesOne(t *testing.T) {
	if polls {
		t.Skip("sleepers poll on this system, so all see that the word has changed")
	}
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		for range 10 { // a sleep may end early, for no reason
			if wakesOne(t) {
				return
			}
		}
		t.Error("a Wake wakes several, each time")
	})
}

// wakesOne reports whether each Wake ends the sleep of one goroutine.
func wakesOne(t *testing.T) bool {
	words := newWords(t, 3, 1)
	waker := newWord(t, words[0].addr, words[0].id, 1)
	ended := sleepers(words)
	atomic.StoreUint32(waker.addr, 1)
	one := true
	for range words {
		waker.Wake()
		next(t, ended)
		time.Sleep(20 * time.Millisecond)
		one = one && len(ended) == 0
	}
	return one
}

func TestWakeWakesAll(t *testing.T) {
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		words := newWords(t, 5, All)
		ended := sleepers(words)
		atomic.StoreUint32(words[0].addr, 1)
		words[3].Wake()
		for range words {
			next(t, ended)
		}
	})
}

func TestInterruptEndsOneSleep(t *testing.T) {
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		for _, wakes := range []int{1, All} {
			words := newWords(t, 3, wakes)
			ended := sleepers(words[:2])
			words[2].Interrupt() // nobody sleeps on it
			wantNone(t, ended)
			for i := range 2 {
				words[i].Interrupt()
				if n := next(t, ended); n != i {
					t.Errorf("%d is interrupted, and %d ends", i, n)
				}
			}
		}
	})
}

func TestInterruptBeforeSleep(t *testing.T) {
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		for range 100 {
			ticket := w.Ticket()
			w.Interrupt()
			w.Sleep(ticket, 0, long)
		}
	})
}

// The interrupt comes at any time around the beginning of the sleep.
func TestInterruptAsSleepBegins(t *testing.T) {
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		var over atomic.Bool
		begin := make(chan bool)
		go func() {
			for range begin {
				for range rand.IntN(3000) { // some time
					over.Load()
				}
				over.Store(true)
				w.Interrupt()
				begin <- true
			}
		}()
		for range 2000 {
			over.Store(false)
			begin <- true
			for {
				ticket := w.Ticket()
				if over.Load() {
					break
				}
				w.Sleep(ticket, 0, long)
			}
			<-begin
		}
		close(begin)
	})
}

// Interrupt returns when the sleeper has left Sleep, so that the caller can
// unmap the memory.
func TestInterruptWaits(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		w := newWords(t, 1, 1)[0]
		for range 20 {
			ended := sleepers([]*Word{w})
			w.Interrupt()
			if w.sleeps.Load()%2 != 0 {
				t.Error("the sleeper has not left")
			}
			next(t, ended)
		}
	})
}

// A file is as much of a store as these tests need: memory that processes
// share, with words in different places.
type sharedFile struct {
	path string
	id   uint64
	file *os.File
	data mmap.MMap
}

func newFile(t *testing.T) sharedFile {
	path := filepath.Join(t.TempDir(), "shared")
	if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := mapFile(path, rand.Uint64())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.close)
	return f
}

func mapFile(path string, id uint64) (sharedFile, error) {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return sharedFile{}, err
	}
	data, err := mmap.Map(file, mmap.RDWR, 0)
	return sharedFile{path, id, file, data}, err
}

func (f sharedFile) close() {
	f.data.Unmap() // before the file is closed, for Windows
	f.file.Close()
}

// word returns a Word at an offset.
func (f sharedFile) word(offset, wakes int) *Word {
	w := new(Word)
	w.Init((*uint32)(unsafe.Pointer(&f.data[offset])), f.id, fmt.Sprint(offset), wakes)
	return w
}

const roleEnv = "QSHM_TEST_FUTEX" // way, role, path, id, number

var roles = map[string]func(f sharedFile, n int) error{"sleep": sleepRole, "turns": turnsRole}

func TestMain(m *testing.M) {
	fields := strings.Split(os.Getenv(roleEnv), "|")
	if len(fields) < 5 {
		os.Exit(m.Run())
	}
	setWay(fields[0])
	id, _ := strconv.ParseUint(fields[3], 10, 64)
	f, err := mapFile(fields[2], id)
	if err == nil {
		go func() { // the test has ended
			io.Copy(io.Discard, os.Stdin)
			os.Exit(2)
		}()
		n, _ := strconv.Atoi(fields[4])
		err = roles[fields[1]](f, n)
	}
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// A child is another process, with its role.
type child struct {
	*exec.Cmd
	out *bufio.Reader
}

func (f sharedFile) start(t *testing.T, role string, n int) child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleEnv+"="+strings.Join([]string{otherWay(), role, f.path, strconv.FormatUint(f.id, 10), strconv.Itoa(n)}, "|"))
	cmd.Stderr = os.Stderr
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	c := child{cmd, bufio.NewReader(out)}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	if line := c.line(t); line != "ready" {
		t.Fatal(line)
	}
	return c
}

func (c child) line(t *testing.T) string {
	t.Helper()
	timeout := time.AfterFunc(time.Minute, func() { c.Process.Kill() })
	defer timeout.Stop()
	line, err := c.out.ReadString('\n')
	if err != nil {
		t.Fatal("the other process ends: ", err, line)
	}
	return strings.TrimSpace(line)
}

// sleepRole sleeps on the word at offset n until it changes, and prints how
// often Sleep returned.
func sleepRole(f sharedFile, n int) error {
	setOnlyWakes()
	wakes := 1
	if n > 0 {
		wakes = All
	}
	w := f.word(n, wakes)
	fmt.Println("ready")
	returns := 0
	for ; atomic.LoadUint32(w.addr) == 0; returns++ {
		w.Sleep(w.Ticket(), 0, long)
	}
	fmt.Println(returns)
	return nil
}

// startSleepers starts other processes that sleep on the word at an offset, and
// waits until they do, most probably.
func (f sharedFile) startSleepers(t *testing.T, offset, n int) (children []child) {
	for range n {
		children = append(children, f.start(t, "sleep", offset))
	}
	time.Sleep(100 * time.Millisecond)
	return children
}

func TestWakeWakesAnotherProcess(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		w := f.word(0, 1)
		defer w.Close()
		sleeper := f.startSleepers(t, 0, 1)[0]
		atomic.StoreUint32(w.addr, 1)
		w.Wake()
		sleeper.line(t)
	})
}

func TestWakeWakesAllProcesses(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		w := f.word(64, All)
		defer w.Close()
		children := f.startSleepers(t, 64, 3)
		atomic.StoreUint32(w.addr, 1)
		w.Wake()
		for _, c := range children {
			c.line(t)
		}
	})
}

// What ends one wait only must not wake other processes.
func TestInterruptWakesNoOtherProcess(t *testing.T) {
	onlyWakes(t)
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		w := f.word(0, 1)
		defer w.Close()
		other := f.startSleepers(t, 0, 1)[0]
		const n = 50
		for range n {
			ended := sleepers([]*Word{w})
			w.Interrupt()
			next(t, ended)
		}
		atomic.StoreUint32(w.addr, 1)
		w.Wake()
		if returns, err := strconv.Atoi(other.line(t)); err != nil || returns > n/10 { // a few may be early
			t.Errorf("%d interrupts here end %d sleeps of another process, %v", n, returns, err)
		}
	})
}

// takeTurns sets the word to its turns, n times, each when the other side has
// had its turn.
func takeTurns(w *Word, first uint32, n int) {
	for turn := first; turn < uint32(2*n); turn += 2 {
		for {
			ticket := w.Ticket()
			value := atomic.LoadUint32(w.addr)
			if value == turn {
				break
			}
			w.Sleep(ticket, value, long)
		}
		atomic.StoreUint32(w.addr, turn+1)
		w.Wake()
	}
}

func turnsRole(f sharedFile, n int) error {
	w := f.word(0, 1)
	fmt.Println("ready")
	takeTurns(w, 1, n)
	fmt.Println("done")
	return nil
}

// If a wake were lost, the sleep would last until long is over or, on Windows,
// the nap.
func TestTurnsOfTwoProcesses(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		f := newFile(t)
		w := f.word(0, 1)
		defer w.Close()
		const n = 2000
		other := f.start(t, "turns", n)
		done := make(chan int)
		go func() {
			takeTurns(w, 0, n)
			done <- 0
		}()
		if line := other.line(t); line != "done" {
			t.Error(line)
		}
		next(t, done)
	})
}

// Many Words, whose sleepers are woken, interrupted and time out, count under a
// lock made of them.
func TestStress(t *testing.T) {
	eachWay(t, func(t *testing.T) {
		const n = 4
		rounds := 5000
		if testing.Short() {
			rounds = 1000
		}
		words := newWords(t, n, 1)
		addr := words[0].addr
		const free, taken, waiters = 0, 1, 2 // waiters: taken, and somebody may sleep
		count := 0                           // guarded by the lock, which the race detector sees through addr
		var wg sync.WaitGroup
		stop := make(chan bool)
		interrupted := make(chan bool)
		go func() {
			defer close(interrupted)
			for {
				select {
				case <-stop:
					return
				default:
					words[rand.IntN(n)].Interrupt()
					time.Sleep(time.Duration(rand.IntN(200)) * time.Microsecond)
				}
			}
		}()
		for _, w := range words {
			wg.Go(func() {
				for range rounds {
					want := uint32(taken)
					for !atomic.CompareAndSwapUint32(addr, free, want) {
						ticket := w.Ticket()
						want = waiters
						if value := atomic.LoadUint32(addr); value == taken && !atomic.CompareAndSwapUint32(addr, taken, waiters) || value == free {
							continue
						}
						d := long
						if rand.IntN(4) == 0 {
							d = time.Duration(rand.IntN(100)) * time.Microsecond
						}
						w.Sleep(ticket, waiters, d)
					}
					count++
					if rand.IntN(16) == 0 {
						time.Sleep(20 * time.Microsecond) // the others find the lock taken
					}
					if atomic.SwapUint32(addr, free) == waiters {
						w.Wake()
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		<-interrupted
		sleeps := uint32(0)
		for _, w := range words {
			sleeps += w.sleeps.Load() / 2
		}
		if sleeps < 100 {
			t.Errorf("only %d sleeps", sleeps)
		}
		t.Log(sleeps, "sleeps")
		if count != n*rounds {
			t.Errorf("%d, want %d", count, n*rounds)
		}
	})
}

func BenchmarkTurns(b *testing.B) {
	words := newWords(b, 2, 1)
	b.ReportAllocs()
	done := make(chan bool)
	go func() {
		takeTurns(words[1], 1, b.N)
		done <- true
	}()
	takeTurns(words[0], 0, b.N)
	<-done
}

func BenchmarkWakeNobody(b *testing.B) {
	w := newWords(b, 1, 1)[0]
	for b.Loop() {
		w.Wake()
	}
}
