// Package languages holds two programs in other languages, which do as
// shm/FORMAT.md says, and the tests that run them beside Go processes: what they
// need of the format stands there.
package languages

import (
	"bufio"
	"bytes"
	"encoding/binary"
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
	"qshm/shm"
)

// patience bounds what must end. Whoever runs into it hangs.
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

// child is the Go process: it does what qshm.c does by the same arguments.
func child(args []string) error {
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

// A program is how a command line begins; or it skips the test.
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
	in     io.Closer
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

// kill ends the process wherever it is. It is gone when kill returns.
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

// Offsets and bits that show what somebody is about to do.
const (
	wordOffset = 192
	waitersBit = 1 << 31
	bellOffset = 256
	bellArmed  = 1
)

// observe waits until the header says that somebody waits.
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
	t.Fatal("nobody waits")
}

func waitsForLock(t *testing.T, seg *shm.Segment) {
	t.Helper()
	observe(t, seg, wordOffset, 8, waitersBit)
}

func waitsForChange(t *testing.T, seg *shm.Segment) {
	t.Helper()
	observe(t, seg, bellOffset, 4, bellArmed)
}

// lines says what the programs should, by shm.List.
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
				attach(t, "many", shm.ReadOnly)
			}
		}
		check(t, many.Update(increment))
		check(t, many.Lock())
		// What the dead have left; and what is no segment.
		dead := start(t, goProgram, "lock", "dead")
		dead.wantLine("locked")
		dead.kill()
		for name, content := range map[string]string{
			keymap.Name("empty"):     "",
			keymap.Name("zeros"):     strings.Repeat("\x00", 5000),
			keymap.Name("strange"):   strings.Repeat("strange", 1000),
			keymap.Name("one"):       "\x00",
			"no-name":                "",
			".live.00000000000000ff": "",
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
				// A reader without a slot cannot ask for a turn, so leave it some.
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

// The program in Python keeps nothing alive, and says when all others have gone;
// also if they were killed, and nobody has changed the state.
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

// An owner that is killed inside is followed by a process of the other language,
// which is waiting for the lock by then, or comes later.
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
				var heir *process
				if waits {
					heir = start(t, c.then, "lock", key)
					waitsForLock(t, seg)
				}
				owner.kill()
				if !waits {
					heir = start(t, c.then, "lock", key)
				}
				heir.wantLine("locked, abandoned")
				if got := seg.Version(); got != 1 {
					t.Errorf("version %d while the lock is taken over, want 1", got)
				}
				heir.wantEnd("")
				check(t, seg.Lock())
				if seg.Abandoned() {
					t.Error("still abandoned, after the heir has unlocked")
				}
				check(t, seg.Unlock())
				if got := seg.Version(); got != 3 {
					t.Errorf("version %d, want 3: taken over, and unlocked twice", got)
				}
			})
		}
	}
}

func TestWaiterIsWokenByADeadOwnersHeir(t *testing.T) {
	inEach(t, func(t *testing.T, p program) {
		store(t)
		seg := create(t, key, 64)
		owner := start(t, goProgram, "lock", key)
		owner.wantLine("locked")
		waiter := start(t, p, "wait", key, "0", asLongAsItTakes)
		waitsForChange(t, seg)
		owner.kill()
		heir := start(t, cProgram, "lock", key)
		heir.wantLine("locked, abandoned")
		waiter.wantEnd("1\n")
	})
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
		t.Errorf("gone while C is attached: %v", err)
	}
	last.wantEnd("")
	wantEmpty(t, dir)
}

// Whoever has the segment when C comes and goes keeps it; and so does one who has
// it under the same key since it was removed.
func TestCDetachesFromWhatWasRemoved(t *testing.T) {
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
