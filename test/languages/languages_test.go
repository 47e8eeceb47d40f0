// Package languages holds two programs in other languages, which follow
// shm/FORMAT.md and shm/stream/FORMAT.md, and the tests that run them beside Go
// processes. They show that the documents say all that a program needs to know.
package languages

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"qshm/keymap"
	"qshm/lockfile"
	"qshm/shm"
)

// patience bounds how long a process may take. One that takes longer hangs.
const patience = 60 * time.Second

const (
	key      = "a key, in common"
	envChild = "QSHM_LANGUAGES_CHILD"
)

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		if err := child(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if built.dir != "" {
		os.RemoveAll(built.dir)
	}
	os.Exit(code)
}

// child is the Go process: it does what qshm.c does with the same arguments.
func child(args []string) error {
	if args[0] == "subscribe" {
		return childSubscribes(args[1], args[2])
	}
	seg, _, err := shm.Open(args[1], 64)
	if err != nil {
		return err
	}
	defer seg.Detach()
	switch args[0] {
	case "lock":
		if err := seg.Lock(); err != nil {
			return err
		}
		if seg.Abandoned() {
			fmt.Println("locked, abandoned")
		} else {
			fmt.Println("locked")
		}
		io.Copy(io.Discard, os.Stdin)
		return seg.Unlock()
	case "update":
		times, err := strconv.Atoi(args[2])
		for range times {
			if err == nil {
				err = seg.Update(increment)
			}
		}
		return err
	}
	return fmt.Errorf("no command %q", args[0])
}

// increment adds one to each 64-bit number of the data.
func increment(data []byte) error {
	for ; len(data) >= 8; data = data[8:] {
		binary.NativeEndian.PutUint64(data, binary.NativeEndian.Uint64(data)+1)
	}
	return nil
}

// A program returns how its command line begins, or skips the test.
type program func(t *testing.T) []string

func goProgram(t *testing.T) []string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return []string{path}
}

func pythonProgram(t *testing.T) []string {
	t.Helper()
	onlyLinux(t)
	path, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3:", err)
	}
	return []string{path, "qshm.py"}
}

// pythonFollower is pythonProgram for follow, which uses compare-and-swap.
func pythonFollower(t *testing.T) []string {
	t.Helper()
	program := pythonProgram(t)
	if out, err := exec.Command(program[0], "-c", `import ctypes; ctypes.CDLL("libatomic.so.1")`).CombinedOutput(); err != nil {
		t.Skipf("Python does not find libatomic.so.1, a library of GCC: %v\n%s", err, out)
	}
	return program
}

func cProgram(t *testing.T) []string {
	t.Helper()
	onlyLinux(t)
	path, err := exec.LookPath("cc")
	if err != nil {
		t.Skip("no C compiler:", err)
	}
	built.once.Do(func() { build(path) })
	if built.noHeaders {
		t.Skip("cc finds no headers of libc")
	}
	if built.err != nil {
		t.Fatal(built.err)
	}
	return []string{filepath.Join(built.dir, "qshm")}
}

func onlyLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("the programs sleep by futex(2), which is Linux's")
	}
	file, err := os.Open(os.Args[0])
	check(t, err)
	defer file.Close()
	if lockfile.KindFor(file) != lockfile.RecordLocks {
		t.Skip("the programs use record locks only")
	}
}

// built is qshm.c, compiled.
var built struct {
	once      sync.Once
	dir       string
	noHeaders bool
	err       error
}

func build(cc string) {
	probe := exec.Command(cc, "-x", "c", "-fsyntax-only", "-")
	probe.Stdin = strings.NewReader("#include <stdlib.h>\n#include <linux/futex.h>\n")
	if probe.Run() != nil {
		built.noHeaders = true
		return
	}
	if built.dir, built.err = os.MkdirTemp("", "qshm-languages-"); built.err != nil {
		return
	}
	out, err := exec.Command(cc, "-std=c11", "-O2", "-o", filepath.Join(built.dir, "qshm"), "qshm.c").CombinedOutput()
	if err != nil {
		built.err = fmt.Errorf("cc: %w\n%s", err, out)
	}
}

// inEach runs a test with each of the programs.
func inEach(t *testing.T, test func(t *testing.T, p program)) {
	t.Helper()
	t.Run("python", func(t *testing.T) { test(t, pythonProgram) })
	t.Run("c", func(t *testing.T) { test(t, cProgram) })
}

// store makes a store in which nothing is left when the test is over.
func store(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(keymap.EnvDir, dir)
	t.Cleanup(func() {
		if _, err := shm.Sweep(); err != nil {
			t.Error(err)
		}
		wantEmpty(t, dir)
	})
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Error(err)
	}
	for _, e := range entries {
		t.Errorf("left in the store: %s", e.Name())
	}
}

func create(t *testing.T, key string, size int, opts ...shm.Option) *shm.Segment {
	t.Helper()
	seg, err := shm.Create(key, size, opts...)
	return attached(t, seg, err)
}

func attach(t *testing.T, key string, opts ...shm.Option) *shm.Segment {
	t.Helper()
	seg, err := shm.Attach(key, opts...)
	return attached(t, seg, err)
}

func attached(t *testing.T, seg *shm.Segment, err error) *shm.Segment {
	t.Helper()
	check(t, err)
	t.Cleanup(func() { seg.Close() })
	return seg
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A process runs one of the programs.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
	hangs  *time.Timer
	over   bool
}

// start starts a program. Its standard input stays open until it is to end.
func start(t *testing.T, by program, args ...string) *process {
	t.Helper()
	line := append(by(t), args...)
	p := &process{t: t, cmd: exec.Command(line[0], line[1:]...)}
	p.cmd.Env = append(os.Environ(), envChild+"=1", "GORACE=atexit_sleep_ms=0")
	p.cmd.Stderr = &p.stderr
	in, err := p.cmd.StdinPipe()
	check(t, err)
	out, err := p.cmd.StdoutPipe()
	check(t, err)
	p.in, p.out = in, bufio.NewReader(out)
	check(t, p.cmd.Start())
	p.hangs = time.AfterFunc(patience, func() { p.cmd.Process.Kill() })
	t.Cleanup(func() {
		if !p.over {
			p.kill()
		}
	})
	return p
}

// wantLine reads the next line of the output.
func (p *process) wantLine(want string) {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if line != want+"\n" {
		code := p.kill()
		p.t.Fatalf("%v says %q, want %q (%v, status %d)\n%s", p.cmd.Args, line, want, err, code, &p.stderr)
	}
}

// end lets the process end, and returns the rest of its output and its status.
func (p *process) end() (output string, status int) {
	p.t.Helper()
	p.in.Close()
	rest, _ := io.ReadAll(p.out)
	return string(rest), p.wait()
}

func (p *process) wait() int {
	p.cmd.Wait()
	p.over = true
	p.hangs.Stop()
	return p.cmd.ProcessState.ExitCode()
}

// wantEnd lets the process end in order.
func (p *process) wantEnd(want string) {
	p.t.Helper()
	if output, status := p.end(); output != want || status != 0 {
		p.t.Fatalf("%v: %q, status %d, want %q\n%s", p.cmd.Args, output, status, want, &p.stderr)
	}
}

// kill kills the process and waits until it has exited.
func (p *process) kill() int {
	p.cmd.Process.Kill()
	return p.wait()
}

// run runs a program to its end and returns its output.
func run(t *testing.T, by program, args ...string) string {
	t.Helper()
	p := start(t, by, args...)
	output, status := p.end()
	if status != 0 {
		t.Fatalf("%v: status %d\n%s", p.cmd.Args, status, &p.stderr)
	}
	return output
}

// Offsets and bits of the header.
const (
	kindOffset  = 48
	refsOffset  = 132
	wordOffset  = 192
	waitersBit  = 1 << 31
	eventOffset = 256
	eventArmed  = 1
)

// observe waits until the header says that a process waits.
func observe(t *testing.T, seg *shm.Segment, offset int64, size int, bit uint64) {
	t.Helper()
	info, err := seg.Info()
	check(t, err)
	file, err := os.Open(info.Path)
	check(t, err)
	defer file.Close()
	for start := time.Now(); time.Since(start) < patience; runtime.Gosched() {
		var b [8]byte
		_, err := file.ReadAt(b[:size], offset)
		check(t, err)
		value := uint64(binary.NativeEndian.Uint32(b[:]))
		if size == 8 {
			value = binary.NativeEndian.Uint64(b[:])
		}
		if value&bit != 0 {
			return
		}
	}
	t.Fatal("no process waits")
}

func waitsForLock(t *testing.T, seg *shm.Segment) {
	t.Helper()
	observe(t, seg, wordOffset, 8, waitersBit)
}

func waitsForChange(t *testing.T, seg *shm.Segment) {
	t.Helper()
	observe(t, seg, eventOffset, 4, eventArmed)
}

// lines returns what the programs should print as the list, from shm.List.
func lines(t *testing.T) string {
	t.Helper()
	all, err := shm.List()
	check(t, err)
	var b strings.Builder
	for _, info := range all {
		owner, pids := "-", "-"
		if info.Owner != nil {
			owner = strconv.Itoa(info.Owner.PID)
		}
		for i, a := range info.Attachments {
			pid := strconv.Itoa(a.PID)
			if a.ReadOnly {
				pid += "r"
			}
			if i > 0 {
				pid = pids + "," + pid
			}
			pids = pid
		}
		fmt.Fprintf(&b, "%s\t%v\t%d\t%d\t%d\t%s\t%s\t", info.Name, info.Status, info.Size, info.Version, info.Attached, owner, pids)
		for _, c := range []byte(info.Key) {
			if c < 0x21 || c > 0x7e || c == '\\' {
				fmt.Fprintf(&b, "\\x%02x", c)
			} else {
				b.WriteByte(c)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestListsAgree(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		dir := store(t)
		for _, k := range []string{"plain", "Größe", "\xff\x00\\", "!?", strings.Repeat("long ", 100), strings.Repeat("a", 22) + " b", strings.Repeat("a", 23) + " b"} {
			create(t, k, len(k))
		}
		// More slots than the first page has, and most of them taken.
		many := create(t, "many", 1<<20, shm.MaxAttachments(1000))
		for i := range 300 {
			if i%2 == 0 {
				attach(t, "many")
			} else {
				attach(t, "many", shm.ReadOnly())
			}
		}
		check(t, many.Update(increment))
		check(t, many.Lock())
		// What dead processes have left, and files that are no segments.
		dead := start(t, goProgram, "lock", "dead")
		dead.wantLine("locked")
		dead.kill()
		for name, content := range map[string]string{
			keymap.Name("empty"):      "",
			keymap.Name("zeros"):      strings.Repeat("\x00", 4096),
			keymap.Name("more zeros"): strings.Repeat("\x00", 4097),
			keymap.Name("foreign"):    strings.Repeat("foreign", 1000),
			keymap.Name("one"):        "\x00",
			"no-name":                 "",
			strings.TrimSuffix(keymap.Name("no suffix"), keymap.Suffix): "",
		} {
			path := filepath.Join(dir, name)
			check(t, os.WriteFile(path, []byte(content), 0o600))
			t.Cleanup(func() { os.Remove(path) })
		}
		for _, name := range []string{keymap.Name("directory"), keymap.Name("link")} {
			path := filepath.Join(dir, name)
			if strings.HasPrefix(name, "link") {
				check(t, os.Symlink(filepath.Join(dir, keymap.Name("plain")), path))
			} else {
				check(t, os.Mkdir(path, 0o700))
			}
			t.Cleanup(func() { os.Remove(path) })
		}
		if got, want := run(t, p, "list"), lines(t); got != want {
			t.Errorf("the list is\n%s\nwant\n%s", got, want)
		}
	})
}

func TestGoSeesWhatCIsAttachedTo(t *testing.T) {
	store(t)
	seg := create(t, key, 64)
	holder := start(t, cProgram, "lock", key)
	holder.wantLine("locked")
	info, err := seg.Info()
	check(t, err)
	if pid := holder.cmd.Process.Pid; info.Attached != 2 || info.Owner == nil || info.Owner.PID != pid {
		t.Errorf("%d attached, the lock is held by %v, want process %d", info.Attached, info.Owner, pid)
	}
	inEach(t, func(t *testing.T, p program) {
		if got, want := run(t, p, "list"), lines(t); got != want {
			t.Errorf("the list is\n%s\nwant\n%s", got, want)
		}
	})
	holder.wantEnd("")
	if info, err = seg.Info(); err != nil || info.Attached != 1 || info.Owner != nil {
		t.Errorf("afterwards: %+v, %v", info, err)
	}
}

func TestReadReadsAllAndNothingElse(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 5001)
		text := strings.Repeat("0123456789", 500) + "!"
		_, err := seg.WriteAt([]byte(text), 0)
		check(t, err)
		for _, command := range []string{"read", "snapshot"} {
			if got := run(t, p, command, key); got != text {
				t.Errorf("%s: %d bytes: %.20q…", command, len(got), got)
			}
		}
	})
}

// A Go process fills the data with one value after another. A copy that has two
// of them is torn.
func TestSnapshotsAreNeverTorn(t *testing.T) {
	const size, copies = 1 << 20, 100 // large: a copy takes long, and writers come between
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, size)
		reader := start(t, p, "snapshot", key, strconv.Itoa(copies))
		done := make(chan struct{})
		var writer sync.WaitGroup
		writer.Go(func() {
			for value := byte(1); ; value++ {
				select {
				case <-done:
					return
				default:
				}
				err := seg.Update(func(data []byte) error {
					for i := 0; i < len(data); i += 4096 {
						copy(data[i:i+4096], bytes.Repeat([]byte{value}, 4096))
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
				// A reader without a slot cannot take the lock, so leave it some time.
				time.Sleep(time.Duration(value) * time.Microsecond)
			}
		})
		defer writer.Wait()
		defer close(done)
		seen := map[byte]bool{}
		buf := make([]byte, size)
		for i := range copies {
			if _, err := io.ReadFull(reader.out, buf); err != nil {
				reader.kill()
				t.Fatalf("copy %d: %v\n%s", i, err, &reader.stderr)
			}
			seen[buf[0]] = true
			if n := bytes.Count(buf, buf[:1]); n != size {
				t.Fatalf("copy %d is torn: %d of %d bytes are %d", i, n, size, buf[0])
			}
			// The next copy is of another time.
			since := seg.Version()
			if _, err := seg.Wait(t.Context(), since); err != nil {
				t.Fatal(err)
			}
		}
		reader.wantEnd("")
		if len(seen) < 2 {
			t.Errorf("all copies are of one moment")
		}
	})
}

// Without a wake, the sleeper would sleep on for longer than a test takes.
const asLongAsItTakes = "3600"

func TestWaitIsWokenByGo(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		for version := range uint32(5) {
			waiter := start(t, p, "wait", key, fmt.Sprint(version), asLongAsItTakes)
			waitsForChange(t, seg)
			check(t, seg.Update(increment))
			waiter.wantEnd(fmt.Sprintln(version + 1))
		}
	})
}

func TestWaitIsWokenByC(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		waiter := start(t, p, "wait", key, "0", asLongAsItTakes)
		waitsForChange(t, seg)
		changed := make(chan error)
		go func() {
			version, err := seg.Wait(t.Context(), 0)
			if err == nil && version != 1 {
				err = fmt.Errorf("version %d", version)
			}
			changed <- err
		}()
		run(t, cProgram, "update", key)
		waiter.wantEnd("1\n")
		check(t, <-changed)
	})
}

func TestWaitDoesNotSleepOnAChangeThatWas(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		check(t, seg.Update(increment))
		if got := run(t, p, "wait", key, "0", asLongAsItTakes); got != "1\n" {
			t.Errorf("version %q", got)
		}
	})
}

// The program in Python keeps nothing alive and reports when every attached process
// has exited, also if they were killed and the state is still live.
func TestWaitWithoutASlotEndsWithTheOthers(t *testing.T) {
	store(t)
	seg := create(t, key, 64)
	waiter := start(t, pythonProgram, "wait", key, "0", "0.01")
	waitsForChange(t, seg)
	check(t, seg.Detach())
	if output, status := waiter.end(); output != "" || status != 3 {
		t.Errorf("after the last detach: %q, status %d\n%s", output, status, &waiter.stderr)
	}

	owner := start(t, goProgram, "lock", key)
	owner.wantLine("locked")
	waiter = start(t, pythonProgram, "wait", key, "0", "0.01")
	seg = attach(t, key)
	waitsForChange(t, seg)
	check(t, seg.Detach())
	owner.kill()
	if output, status := waiter.end(); output != "" || status != 3 {
		t.Errorf("after the last death: %q, status %d\n%s", output, status, &waiter.stderr)
	}
}

func TestLocksExcludeEachOther(t *testing.T) {
	store(t)
	const times = 20000
	seg := create(t, key, 64)
	var all []*process
	for range 2 {
		all = append(all, start(t, cProgram, "update", key, strconv.Itoa(times)),
			start(t, goProgram, "update", key, strconv.Itoa(times)))
	}
	for range times {
		check(t, seg.Update(increment))
	}
	for _, p := range all {
		p.wantEnd("")
		if text := p.stderr.String(); text != "" {
			t.Errorf("%v: %s", p.cmd.Args, text)
		}
	}
	for i := range 8 {
		if got := binary.NativeEndian.Uint64(seg.Data()[i*8:]); got != 5*times {
			t.Errorf("number %d is %d, want %d", i, got, 5*times)
		}
	}
	if got := seg.Version(); got != 5*times {
		t.Errorf("version %d, want %d", got, 5*times)
	}
}

// An owner is killed. A process of the other language takes the lock over; it is
// waiting for the lock by then, or starts later.
func TestLockIsTakenOverFromTheDead(t *testing.T) {
	for _, c := range []struct {
		name        string
		first, then program
	}{{"by Go from C", cProgram, goProgram}, {"by C from Go", goProgram, cProgram}, {"by C from C", cProgram, cProgram}} {
		for _, waits := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, waiting: %v", c.name, waits), func(t *testing.T) {
				store(t)
				seg := create(t, key, 64)
				owner := start(t, c.first, "lock", key)
				owner.wantLine("locked")
				var next *process
				if waits {
					next = start(t, c.then, "lock", key)
					waitsForLock(t, seg)
				}
				owner.kill()
				if !waits {
					next = start(t, c.then, "lock", key)
				}
				next.wantLine("locked, abandoned")
				if got := seg.Version(); got != 1 {
					t.Errorf("version %d while the lock is taken over, want 1", got)
				}
				next.wantEnd("")
				check(t, seg.Lock())
				if seg.Abandoned() {
					t.Error("still abandoned, after the next owner has unlocked")
				}
				check(t, seg.Unlock())
				if got := seg.Version(); got != 3 {
					t.Errorf("version %d, want 3: taken over, and unlocked twice", got)
				}
			})
		}
	}
}

func TestWaiterIsWokenWhenTheLockIsTakenOver(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		owner := start(t, goProgram, "lock", key)
		owner.wantLine("locked")
		waiter := start(t, p, "wait", key, "0", asLongAsItTakes)
		waitsForChange(t, seg)
		owner.kill()
		next := start(t, cProgram, "lock", key)
		next.wantLine("locked, abandoned")
		waiter.wantEnd("1\n")
	})
}

// A waiter for the version in C sees for itself that the owner of the lock has died.
func TestWaitInCEndsWhenTheOwnerDies(t *testing.T) {
	store(t)
	seg := create(t, key, 64)
	owner := start(t, goProgram, "lock", key)
	owner.wantLine("locked")
	waiter := start(t, cProgram, "wait", key, "0", "0.01")
	waitsForChange(t, seg)
	owner.kill()
	waiter.wantEnd("1\n")
	check(t, seg.Lock())
	if !seg.Abandoned() {
		t.Error("not abandoned")
	}
	check(t, seg.Unlock())
}

func TestSnapshotReportsAbandoned(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		owner := start(t, goProgram, "lock", key)
		owner.wantLine("locked")
		owner.kill()
		for _, when := range []string{"before", "after"} {
			reader := start(t, p, "snapshot", key)
			if output, status := reader.end(); output != "" || status != 4 {
				t.Errorf("%s the lock is taken over: %d bytes, status %d\n%s", when, len(output), status, &reader.stderr)
			}
			_, _, err := seg.Snapshot(make([]byte, 64)) // takes it over
			if err == nil {
				t.Error("nothing was abandoned")
			}
		}
		check(t, seg.Update(increment))
		if got := run(t, p, "snapshot", key); len(got) != 64 {
			t.Errorf("repaired, and %d bytes", len(got))
		}
	})
}

func TestLastDetachInCDestroys(t *testing.T) {
	dir := store(t)
	seg := create(t, key, 64)
	last := start(t, cProgram, "lock", key)
	last.wantLine("locked")
	check(t, seg.Detach())
	if _, err := shm.Stat(key); err != nil {
		t.Errorf("destroyed while C is attached: %v", err)
	}
	last.wantEnd("")
	wantEmpty(t, dir)
}

// A C process detaches from a removed segment and leaves the new segment of the same
// key alone.
func TestCDetachesFromARemovedSegment(t *testing.T) {
	store(t)
	create(t, key, 64)
	holder := start(t, cProgram, "lock", key)
	holder.wantLine("locked")
	check(t, shm.Remove(key))
	fresh := create(t, key, 64)
	holder.wantEnd("")
	check(t, fresh.Update(increment))
	if info, err := shm.Stat(key); err != nil || info.Status != shm.StatusLive {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestCTakesTheSlotOfADeadProcess(t *testing.T) {
	store(t)
	seg := create(t, key, 64, shm.MaxAttachments(2))
	dead := start(t, goProgram, "lock", key)
	dead.wantLine("locked")
	dead.kill()
	holder := start(t, cProgram, "lock", key)
	holder.wantLine("locked, abandoned")
	full := start(t, cProgram, "lock", key)
	if _, status := full.end(); status != 1 {
		t.Errorf("a third attachment of two: status %d", status)
	}
	holder.wantEnd("")
	if info, err := seg.Info(); err != nil || info.Attached != 1 {
		t.Errorf("%+v, %v", info, err)
	}
}

func TestCCreates(t *testing.T) {
	dir := store(t)
	creator := start(t, cProgram, "create", key, "100")
	creator.wantLine("created")
	seg := attach(t, key)
	if !bytes.Equal(seg.Data(), make([]byte, 100)) {
		t.Errorf("%d bytes: %x", seg.Size(), seg.Data())
	}
	if _, err := shm.Create(key, 100); !errors.Is(err, shm.ErrExist) {
		t.Errorf("a second create: %v", err)
	}
	second := start(t, cProgram, "create", key, "100")
	if _, status := second.end(); status != 1 {
		t.Errorf("a second create in C: status %d", status)
	}
	inEach(t, func(t *testing.T, p program) {
		if got, want := run(t, p, "list"), lines(t); got != want {
			t.Errorf("the list is\n%s\nwant\n%s", got, want)
		}
	})
	want := strings.Repeat("x", 100)
	_, err := seg.WriteAt([]byte(want), 0)
	check(t, err)
	check(t, seg.Detach())
	creator.wantEnd(want)
	wantEmpty(t, dir)
}

func TestCRemoves(t *testing.T) {
	store(t)
	seg := create(t, key, 64)
	run(t, cProgram, "remove", key)
	if _, err := shm.Stat(key); !errors.Is(err, shm.ErrNotExist) {
		t.Errorf("still under its key: %v", err)
	}
	fresh := create(t, key, 64)
	check(t, seg.Update(increment))
	check(t, fresh.Update(increment))
	if info, err := seg.Info(); err != nil || info.Status != shm.StatusRemoved {
		t.Errorf("%v, %v", info.Status, err)
	}
}

// A program that is attached follows a segment that Go grows.
func TestGrowthByGoIsSeen(t *testing.T) {
	t.Run("create", func(t *testing.T) {
		store(t)
		creator := start(t, cProgram, "create", key, "100")
		creator.wantLine("created")
		seg := attach(t, key)
		check(t, seg.Grow(100_000))
		want := strings.Repeat("0123456789", 10_000)
		_, err := seg.WriteAt([]byte(want), 0)
		check(t, err)
		creator.wantEnd(want)
	})
	inEach(t, func(t *testing.T, p program) {
		const size = 1 << 20 // more than a pipe holds: the program waits within its second copy
		store(t)
		seg := create(t, key, size)
		reader := start(t, p, "snapshot", key, "3")
		_, err := io.ReadFull(reader.out, make([]byte, size))
		check(t, err)
		check(t, seg.Grow(2*size))
		want := strings.Repeat("grown...", 2*size/8)
		_, err = seg.WriteAt([]byte(want), 0)
		check(t, err)
		rest, status := reader.end()
		if status != 0 || !strings.HasSuffix(rest, want) {
			t.Errorf("%d more bytes, status %d\n%s", len(rest), status, &reader.stderr)
		}
	})
}

// A Go process that is attached follows a segment that C grows.
func TestGrowthByCIsSeen(t *testing.T) {
	store(t)
	seg := create(t, key, 100)
	before := seg.Data()
	reader := attach(t, key, shm.ReadOnly())
	version := seg.Version()
	for _, size := range []int{5000, 4000, 1 << 20} {
		want := max(seg.Size(), size)
		if got := run(t, cProgram, "grow", key, strconv.Itoa(size)); got != fmt.Sprintln(want) {
			t.Errorf("C grows to %d: %q", size, got)
		}
		if seg.Size() != want || reader.Size() != want {
			t.Errorf("Go sees %d and %d, want %d", seg.Size(), reader.Size(), want)
		}
	}
	if !bytes.Equal(seg.Data(), make([]byte, 1<<20)) {
		t.Error("the new bytes are not zero")
	}
	if seg.Version() != version {
		t.Error("growing has moved the version")
	}
	run(t, cProgram, "update", key)
	for name, data := range map[string][]byte{"read-write": seg.Data(), "read-only": reader.Data()} {
		if got := binary.NativeEndian.Uint64(data[len(data)-8:]); got != 1 {
			t.Errorf("%s: the last number is %d", name, got)
		}
	}
	if before[0] == 0 && before[7] == 0 {
		t.Error("the slice from before is other memory")
	}
	inEach(t, func(t *testing.T, p program) {
		if got := run(t, p, "read", key); got != string(seg.Data()) {
			t.Errorf("%d bytes", len(got))
		}
	})
}

func TestOtherKindsOfSlotLocksAreRefused(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		info, err := seg.Info()
		check(t, err)
		kind := func(k byte) {
			file, err := os.OpenFile(info.Path, os.O_RDWR, 0)
			check(t, err)
			defer file.Close()
			_, err = file.WriteAt(binary.NativeEndian.AppendUint32(nil, uint32(k)), kindOffset)
			check(t, err)
		}
		kind(byte(lockfile.SiblingFiles))
		defer kind(byte(lockfile.RecordLocks))
		for _, command := range []string{"read", "snapshot"} {
			reader := start(t, p, command, key)
			if output, status := reader.end(); output != "" || status != 1 || !strings.Contains(reader.stderr.String(), "slot locks of kind 2") {
				t.Errorf("%s: %q, status %d: %s", command, output, status, &reader.stderr)
			}
		}
	})
}

// dieAt runs the C program, which reads input and dies before the given step.
func dieAt(t *testing.T, step, input string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	line := append(cProgram(t), args...)
	cmd := exec.CommandContext(ctx, line[0], line[1:]...)
	cmd.Env = append(os.Environ(), "QSHM_FAULT="+step)
	cmd.Stdin = strings.NewReader(input)
	output, _ := cmd.CombinedOutput()
	check(t, ctx.Err())
	if code := cmd.ProcessState.ExitCode(); code != -1 { // -1: a signal has ended it
		t.Fatalf("%v has not reached the step: status %d\n%s", args, code, output)
	}
}

// wantOne checks that seg is the only attachment, works, and can be joined by another.
func wantOne(t *testing.T, seg *shm.Segment, abandoned bool) {
	t.Helper()
	check(t, seg.Lock())
	if seg.Abandoned() != abandoned {
		t.Errorf("abandoned: %v", seg.Abandoned())
	}
	check(t, seg.Unlock())
	second, err := shm.Attach(key)
	check(t, err)
	info, err := seg.Info()
	check(t, err)
	if info.Attached != 2 {
		t.Errorf("%d attached", info.Attached)
	}
	if n := refs(t, seg); n < 2 {
		t.Errorf("the reference count is %d", n)
	}
	check(t, second.Detach())
}

// refs returns the reference count.
func refs(t *testing.T, seg *shm.Segment) uint32 {
	t.Helper()
	info, err := seg.Info()
	check(t, err)
	file, err := os.Open(info.Path)
	check(t, err)
	defer file.Close()
	var b [4]byte
	_, err = file.ReadAt(b[:], refsOffset)
	check(t, err)
	return binary.NativeEndian.Uint32(b[:])
}

func eachStep(t *testing.T, steps string, test func(t *testing.T, step string)) {
	t.Helper()
	for _, step := range strings.Fields(steps) {
		t.Run(step, func(t *testing.T) { test(t, step) })
	}
}

func TestCDiesInCreate(t *testing.T) {
	eachStep(t, `create_file file_lock still_linked write_header allocate map claim recover_word refs_up publish live
		unlock_file release_word clear_slot refs_down release_slot ask file_lock_last still_linked_last ask_again dead unlink`,
		func(t *testing.T, step string) {
			dir := store(t)
			dieAt(t, step, "", "create", key, "64")
			seg := create(t, key, 64)
			wantOne(t, seg, false)
			check(t, seg.Detach())
			wantEmpty(t, dir)
		})
}

func TestCDiesAttached(t *testing.T) {
	eachStep(t, `open file_lock still_linked examine claim recover_word refs_up publish unlock_file take unlock wake
		release_word clear_slot refs_down release_slot ask`,
		func(t *testing.T, step string) {
			dir := store(t)
			seg := create(t, key, 64, shm.MaxAttachments(2))
			dieAt(t, step, "", "update", key)
			wantOne(t, seg, step == "unlock")
			check(t, seg.Detach())
			wantEmpty(t, dir)
		})
}

// C dies while it takes the lock over from a dead process, and while it claims the
// slot of one.
func TestCDiesInRecovery(t *testing.T) {
	for _, c := range []struct {
		name, steps string
		slots       int
	}{
		{"take-over", "probe take_over taken_over unlock wake release_word", 3},
		{"claim", "recover_word recover_slot recover_refs refs_up publish", 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachStep(t, c.steps, func(t *testing.T, step string) {
				dir := store(t)
				seg := create(t, key, 64, shm.MaxAttachments(c.slots))
				dead := start(t, goProgram, "lock", key)
				dead.wantLine("locked")
				dead.kill()
				dieAt(t, step, "", "update", key)
				wantOne(t, seg, step != "wake" && step != "release_word")
				check(t, seg.Detach())
				wantEmpty(t, dir)
			})
		})
	}
}

func TestCDiesInGrow(t *testing.T) {
	const old, grown = 64, 100_000
	eachStep(t, "file_lock:2 still_linked:2 allocate_more publish_size unlock_file:2", func(t *testing.T, step string) {
		dir := store(t)
		seg := create(t, key, old)
		dieAt(t, step, "", "grow", key, strconv.Itoa(grown))
		want := old
		if step == "unlock_file:2" {
			want = grown
		}
		if seg.Size() != want {
			t.Errorf("size %d, want %d", seg.Size(), want)
		}
		check(t, seg.Grow(2*grown))
		if !bytes.Equal(seg.Data(), make([]byte, 2*grown)) {
			t.Error("the new bytes are not zero")
		}
		wantOne(t, seg, false)
		check(t, seg.Detach())
		wantEmpty(t, dir)
	})
}

func TestCDiesInRemove(t *testing.T) {
	eachStep(t, "removed unlink", func(t *testing.T, step string) {
		store(t)
		seg := create(t, key, 64)
		dieAt(t, step, "", "remove", key)
		check(t, seg.Update(increment))
		if step == "removed" {
			wantOne(t, seg, false)
			return
		}
		fresh := create(t, key, 64)
		wantOne(t, fresh, false)
		check(t, seg.Update(increment))
	})
}

func TestNoSegmentIsReported(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		for range 2 {
			for _, command := range [][]string{{"read", key}, {"snapshot", key}, {"wait", key, "0"}} {
				none := start(t, p, command...)
				if output, status := none.end(); output != "" || status != 3 {
					t.Errorf("%v: %q, status %d\n%s", command, output, status, &none.stderr)
				}
			}
			dead := start(t, goProgram, "lock", key)
			dead.wantLine("locked")
			dead.kill()
		}
	})
}
