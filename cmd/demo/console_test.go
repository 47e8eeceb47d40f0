//go:build unix && !solaris

package main

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/creack/pty"
	"github.com/hinshun/vt10x"
	"golang.org/x/term"

	"qshm/cmd/demo/internal/exit"
	"qshm/shm"
)

// A console runs the program on a pseudo-terminal, and keeps what the screen shows.
type console struct {
	t       testing.TB
	cmd     *exec.Cmd
	pty     *os.File
	vt      vt10x.Terminal
	before  *term.State
	changed chan struct{}
	ended   chan error
}

func openConsole(t testing.TB, dir string, args ...string) *console {
	t.Helper()
	return openProgram(t, dir, "demo", args...)
}

func openProgram(t testing.TB, dir, name string, args ...string) *console {
	t.Helper()
	x := &console{t: t, cmd: exec.Command(name, args...), changed: make(chan struct{}, 1), ended: make(chan error, 1)}
	x.cmd.Env = append(os.Environ(), "QSHM_DIR="+dir, "TERM=xterm-256color", "LC_ALL=C.UTF-8", "NO_COLOR=")
	ptmx, tty, err := pty.Open()
	if err != nil {
		t.Skipf("no pseudo-terminal: %v", err)
	}
	x.pty = ptmx
	x.resize(80, 12)
	if x.before, err = term.GetState(int(ptmx.Fd())); err != nil {
		t.Fatal(err)
	}
	x.vt = vt10x.New(vt10x.WithWriter(ptmx), vt10x.WithSize(80, 12))
	x.cmd.Stdin, x.cmd.Stdout, x.cmd.Stderr = tty, tty, tty
	x.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := x.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		buf, have := make([]byte, 64<<10), 0
		for {
			n, err := ptmx.Read(buf[have:])
			if err != nil {
				return
			}
			have += n
			whole := have - incomplete(buf[:have])
			x.vt.Write(buf[:whole])
			have = copy(buf, buf[whole:have])
			select {
			case x.changed <- struct{}{}:
			default:
			}
		}
	}()
	go func() { x.ended <- x.cmd.Wait(); close(x.ended) }()
	t.Cleanup(func() {
		x.cmd.Process.Kill()
		<-x.ended
		tty.Close() // not earlier: the rest of the output would be lost
		ptmx.Close()
	})
	return x
}

func (x *console) resize(columns, rows int) {
	if x.vt != nil {
		x.vt.Resize(columns, rows) // first: what the program draws for the new size must find it
	}
	if err := pty.Setsize(x.pty, &pty.Winsize{Cols: uint16(columns), Rows: uint16(rows)}); err != nil {
		x.t.Fatal(err)
	}
}

// rows returns the rows of the screen, without blanks at their ends.
func (x *console) rows() []string {
	rows := strings.Split(x.vt.String(), "\n")
	for i := range rows {
		rows[i] = strings.TrimRight(rows[i], " ")
	}
	return rows
}

func (x *console) typed(text string) {
	x.t.Helper()
	if _, err := x.pty.WriteString(text); err != nil {
		x.t.Fatal(err)
	}
}

// until waits until ok.
func (x *console) until(what string, ok func() bool) {
	x.t.Helper()
	late := time.After(patience)
	for !ok() {
		select {
		case <-x.changed:
		case <-time.After(50 * time.Millisecond):
		case <-late:
			x.t.Fatalf("%v: the screen does not show %s, but:\n%s", x.cmd.Args, what, strings.Join(x.rows(), "\n"))
		}
	}
}

// see waits until the screen shows text.
func (x *console) see(text string) {
	x.t.Helper()
	x.until(fmt.Sprintf("%q", text), func() bool { return strings.Contains(strings.Join(x.rows(), "\n"), text) })
}

// seeRows waits until the first rows are these.
func (x *console) seeRows(want ...string) {
	x.t.Helper()
	x.until(fmt.Sprintf("the rows %q", want), func() bool { return slices.Equal(x.rows()[:len(want)], want) })
}

// ends waits for the end of the program, which must leave the terminal as it was.
func (x *console) ends(code int) {
	x.t.Helper()
	select {
	case <-x.ended:
	case <-time.After(patience):
		x.t.Fatalf("%v does not end:\n%s", x.cmd.Args, strings.Join(x.rows(), "\n"))
	}
	if got := x.cmd.ProcessState.ExitCode(); got != code {
		x.t.Errorf("%v ends with exit code %d, want %d", x.cmd.Args, got, code)
	}
	x.until("the normal screen, with a cursor, in its former mode", func() bool {
		now, err := term.GetState(int(x.pty.Fd()))
		if err != nil {
			x.t.Fatal(err)
		}
		x.vt.Lock() // the next two calls need it
		normal := x.vt.Mode()&vt10x.ModeAltScreen == 0 && x.vt.CursorVisible()
		x.vt.Unlock()
		return normal && reflect.DeepEqual(x.before, now)
	})
}

// attached returns the processes that are attached under a key.
func attached(t testing.TB, dir, key string) (pids []int) {
	t.Helper()
	cmd := exec.Command("demo", "info", key, "--json")
	cmd.Env = append(os.Environ(), "QSHM_DIR="+dir)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var info segmentJSON
	if err := json.Unmarshal(out, &info); err != nil {
		t.Fatal(err)
	}
	for _, a := range info.Attachments {
		pids = append(pids, a.PID)
	}
	return pids
}

func kill(t testing.TB, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

const quit = "\x11" // Ctrl-Q

func TestViewersShowWhatIsTyped(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("edit notes  0 bytes in 4 KiB")
	first := openConsole(t, dir, "view", "notes")
	first.see("showing what is typed")
	edit.see("has come")
	edit.see("1 editor, 1 viewer")
	edit.typed("hello")
	first.seeRows("hello")
	second := openConsole(t, dir, "view", "notes")
	second.seeRows("hello")
	edit.see("1 editor, 2 viewers")
	edit.typed("\rworld")
	first.seeRows("hello", "world")
	second.seeRows("hello", "world")
	edit.typed("\x7f\x7f\x1b[A\x1b[D!") // two backspaces, up, left
	first.seeRows("he!llo", "wor")
	edit.seeRows("he!llo", "wor")

	second.typed("q")
	second.ends(0)
	edit.see("has gone")
	edit.see("1 editor, 1 viewer")
	edit.typed(quit)
	edit.ends(0)
	first.see("has gone")
	first.see("0 editors, 1 viewer")
	first.seeRows("he!llo", "wor")
	first.typed(quit)
	first.ends(0)
	nothingLeft(t)
}

func TestSeveralEditorsShowTheSame(t *testing.T) {
	dir := testStore(t)
	a := openConsole(t, dir, "edit", "notes")
	a.see("edit notes")
	b := openConsole(t, dir, "edit", "notes")
	b.see("2 editors")
	a.typed("one.")
	b.seeRows("one.")
	b.typed("\x05two.") // Ctrl-E, the end of the line
	a.seeRows("one.two.")
	// Both at once: each key counts, at the place of its editor's cursor.
	for range 20 {
		a.typed("a")
		b.typed("b")
	}
	b.until("all keys", func() bool { return len(b.rows()[0]) == len("one.two.")+40 })
	a.until("what the other shows", func() bool { return a.rows()[0] == b.rows()[0] })
	if row := a.rows()[0]; strings.Count(row, "a") != 20 || strings.Count(row, "b") != 20 {
		t.Errorf("the text is %q, want 20 a and 20 b in it", row)
	}
	a.typed(quit)
	a.ends(0)
	b.typed(quit)
	b.ends(0)
	nothingLeft(t)
}

func TestKilledEditor(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("edit notes") // before that the terminal itself echoes
	edit.typed("before")
	edit.seeRows("before")
	editor := attached(t, dir, "notes")[0]
	view := openConsole(t, dir, "view", "notes")
	view.seeRows("before")
	edit.typed(strings.Repeat("x", 200)) // so that it is killed amid its work
	kill(t, editor)
	edit.ends(128 + int(syscall.SIGKILL))
	edit.see("ended by a signal: killed")
	view.see("has gone")
	if row := view.rows()[0]; !strings.HasPrefix(row, "before") || strings.Trim(row, "x") != "before" {
		t.Errorf("the viewer shows %q", row)
	}
	next := openConsole(t, dir, "edit", "notes")
	next.see("1 editor, 1 viewer")
	next.typed("after ")
	view.until("what the next types", func() bool {
		words := strings.Fields(strings.Join(view.rows(), " ")) // the long word may have a row of its own
		return words[0] == "after" && strings.HasPrefix(words[1], "before")
	})
	next.typed(quit)
	next.ends(0)
	view.typed(quit)
	view.ends(0)
	nothingLeft(t)
}

// The guard, the parent of the process on the screen, may be killed as well.
func TestKilledGuard(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("edit notes")
	kill(t, edit.cmd.Process.Pid)
	edit.ends(-1) // and the process on the screen a moment later
	for {
		if info, err := shm.Stat("notes", shm.Dir(dir)); err != nil || info.Attached == 0 {
			break
		}
		time.Sleep(time.Millisecond)
	}
	view := openConsole(t, dir, "view", "notes")
	view.ends(exit.NotExist)
	view.see("there is no text \"notes\" in ")
	nothingLeft(t)
}

func TestSignalsEndTheScreen(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("edit notes")
	edit.cmd.Process.Signal(syscall.SIGTERM)
	edit.ends(128 + int(syscall.SIGTERM))
	nothingLeft(t)
}

// A stopped editor is alive, and other screens do not hang.
func TestStoppedEditor(t *testing.T) {
	dir := testStore(t)
	a := openConsole(t, dir, "edit", "notes")
	a.see("edit notes")
	pid := attached(t, dir, "notes")[0]
	b := openConsole(t, dir, "edit", "notes")
	b.see("2 editors")
	syscall.Kill(pid, syscall.SIGSTOP)
	b.typed("on my own")
	b.seeRows("on my own")
	b.see("2 editors")
	syscall.Kill(pid, syscall.SIGCONT)
	a.seeRows("on my own")
	a.typed(quit)
	a.ends(0)
	b.typed(quit)
	b.ends(0)
	nothingLeft(t)
}

// incomplete returns how many bytes at the end of text are the beginning of a character:
// the emulator of the terminal would drop them.
func incomplete(text []byte) int {
	for n := 1; n <= min(len(text), utf8.UTFMax); n++ {
		if end := text[len(text)-n:]; utf8.RuneStart(end[0]) {
			if utf8.FullRune(end) {
				return 0
			}
			return n
		}
	}
	return 0
}

func (x *console) pasted(text string) { x.typed("\x1b[200~" + text + "\x1b[201~") }

// Frames show the picture, in half blocks, and below it the numbers, in place.
func TestFramesOnATerminal(t *testing.T) {
	dir := testStore(t)
	watcher := openConsole(t, dir, "frames", "camera", "--watch")
	watcher.resize(80, 24)
	watcher.see("watching")
	camera := openConsole(t, dir, "frames", "camera", "--size", "640x480", "--fps", "50")
	camera.see("filming 640x480, 50 a second")
	numbers := func() (row int, text string) {
		for i, row := range watcher.rows() {
			if strings.Contains(row, " lost") {
				return i, row
			}
		}
		return -1, ""
	}
	watcher.until("a picture", func() bool {
		row, _ := numbers()
		return row == 13 && strings.Count(watcher.rows()[1], "▀") == 64 && strings.Count(watcher.rows()[12], "▀") == 64
	})
	_, first := numbers()
	watcher.until("other numbers in the same place", func() bool {
		row, text := numbers()
		return row == 13 && text != first && strings.Contains(text, " pictures, ")
	})
	greys := map[vt10x.Color]bool{}
	watcher.vt.Lock()
	for x := range 64 {
		greys[watcher.vt.Cell(x, 6).FG] = true
	}
	watcher.vt.Unlock()
	for grey := range greys {
		if grey < 232 || grey > 255 {
			t.Errorf("the picture has the colour %d, which is no grey", grey)
		}
	}
	if len(greys) < 5 {
		t.Errorf("a row of the picture has the greys %v, want a gradient", greys)
	}
	camera.typed("\x03")
	camera.ends(130)
	watcher.ends(0)
	nothingLeft(t)
}

// A transfer of more than two seconds shows on a terminal how many messages it has sent or
// received.
func TestProgressOnATerminal(t *testing.T) {
	dir, stop := testStore(t), filepath.Join(t.TempDir(), "stop")
	recv := openProgram(t, dir, "sh", "-c", "exec demo recv jobs > /dev/null")
	send := openProgram(t, dir, "sh", "-c", "while ! test -e "+stop+"; do echo line; sleep 0.1; done | demo send jobs")
	for _, x := range []*console{recv, send} {
		x.see(map[*console]string{recv: "received ", send: "sent "}[x])
		x.see(" messages, ")
		x.see(" bytes a second")
	}
	if err := os.WriteFile(stop, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, x := range []*console{recv, send} {
		x.ends(0)
		x.until("nothing any more", func() bool { return !strings.Contains(strings.Join(x.rows(), ""), " messages, ") })
	}
	nothingLeft(t)
}

// The segment grows with the text, and all editors and viewers go on.
func TestTextGrows(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("0 bytes in 4 KiB")
	view := openConsole(t, dir, "view", "notes")
	edit.see("1 viewer")
	second := openConsole(t, dir, "edit", "notes")
	edit.see("2 editors")
	line := strings.Repeat("x", 79) + "\r"
	for i, size := range []string{"4 KiB", "4 KiB", "8 KiB", "8 KiB"} {
		edit.pasted(strings.Repeat(line, 9))
		length := fmt.Sprintf("%d bytes in %s", (i+1)*9*80, size)
		edit.see(length)
		view.see(length)
	}
	second.see("2880 bytes in ")
	second.typed("of the second ")
	for _, x := range []*console{edit, view} {
		x.see("2894 bytes in ")
	}
	edit.pasted(strings.Repeat("y", 200_000)) // more than double
	view.see("202894 bytes in ")
	second.see("202894 bytes in ")
	late := openConsole(t, dir, "view", "notes") // a viewer begins at the end
	late.until("the end", func() bool { return strings.HasPrefix(late.rows()[0], "yyyy") })
	second.typed("\x1b[H\x1b[A\x1b[A\x1b[A\x1b[Ato the end")
	for _, x := range []*console{edit, view, second, late} {
		x.see("202904 bytes in ")
		x.typed(quit)
		x.ends(0)
	}
	nothingLeft(t)
}

// A full store keeps the text that fits, in whole characters.
func TestFullStoreKeepsWholeCharacters(t *testing.T) {
	dir := testStore(t)
	smallStore(t, dir, 64<<10)
	edit := openConsole(t, dir, "edit", "notes")
	edit.see("0 bytes in 4 KiB")
	edit.pasted(strings.Repeat("日本語", 10_000))
	edit.see(" of 90000 bytes: the store is full")
	var length int
	edit.until("how much fits", func() bool {
		_, bar, _ := strings.Cut(strings.Join(edit.rows(), "\n"), "edit notes ")
		_, err := fmt.Sscanf(bar, " %d bytes", &length)
		return err == nil && length > 20_000 && length%3 == 0
	})
	edit.typed("\x7f") // what follows works
	edit.see(fmt.Sprintf("%d bytes", length-3))
	edit.typed("e\u0301")
	edit.see(fmt.Sprintf("%d bytes", length))
	edit.typed(quit)
	edit.ends(0)
	nothingLeft(t)
}

// smallStore makes dir a file system of its own, or skips the test.
func smallStore(t *testing.T, dir string, size int) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprintf("mode=700,size=%d", size), "tmpfs", dir).CombinedOutput(); err != nil {
		t.Skipf("mount: %v: %s", err, out)
	}
	t.Cleanup(func() { exec.Command("umount", "-l", dir).Run() })
}

// The status bar spans the window, whatever its width.
func TestStatusBarSpansTheWindow(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "notes")
	for _, width := range []int{80, 120, 40} {
		edit.resize(width, 12)
		edit.until("a bar across the window", func() bool {
			edit.vt.Lock()
			defer edit.vt.Unlock()
			for x := range width {
				if edit.vt.Cell(x, 10).BG != vt10x.DefaultFG { // reversed
					return false
				}
			}
			return true
		})
		edit.see("edit notes")
	}
	edit.typed(quit)
	edit.ends(0)
	nothingLeft(t)
}

func TestUnicodePasteAndResize(t *testing.T) {
	dir := testStore(t)
	edit := openConsole(t, dir, "edit", "ünïcode")
	edit.see("edit ünïcode")
	view := openConsole(t, dir, "view", "ünïcode")
	view.see("view ünïcode")
	edit.typed("\x1b[200~first\rsecond\ttab\r\x1b[201~日本語 e\u0301 👍")
	view.see("first")
	view.see("second  tab")
	view.see("日")
	view.see("👍")
	edit.typed("\x7f\x7f\x7f\x7f")                     // four characters, of one to four bytes
	view.see("26 bytes in 4 KiB")                      // which leaves the first three
	edit.typed("\x15\x7f wide rows break at the edge") // Ctrl-U, backspace
	view.seeRows("first", "second  tab wide rows break at the edge")
	view.resize(20, 8)
	view.seeRows("first", "second  tab wide", "rows break at the", "edge")
	edit.resize(30, 10)
	edit.seeRows("first", "second  tab wide rows break at", "the edge")
	edit.typed(quit)
	edit.ends(0)
	view.typed(quit)
	view.ends(0)
	nothingLeft(t)
}

// How long a keystroke takes to another terminal's screen.
func BenchmarkKeystrokeToViewer(b *testing.B) {
	dir := b.TempDir() + "/store"
	edit := openConsole(b, dir, "edit", "notes")
	edit.see("edit notes")
	view := openConsole(b, dir, "view", "notes")
	view.see("showing")
	edit.see("1 viewer")
	var all []time.Duration
	for i := 0; b.Loop(); i++ {
		key := string(rune('a' + i%26))
		start := time.Now()
		edit.typed(key)
		for !strings.HasPrefix(view.rows()[0], key) {
			<-view.changed
		}
		all = append(all, time.Since(start))
		edit.typed("\x15") // Ctrl-U
		for view.rows()[0] != "" {
			<-view.changed
		}
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds()), "µs/median")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds()), "µs/p99")
	edit.typed(quit)
	view.typed(quit)
}
