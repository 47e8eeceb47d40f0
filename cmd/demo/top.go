package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/layout"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

const topHelp = `Show the segments of a store, live, on the whole screen.

CHANGES/S is how often in a second a process that may have written unlocked the
segment. LOCKED BY is the process that holds the lock, and for how long top has
seen it do so. "demo ls --help" explains the other columns.

Keys:
  Up, Down       choose a segment
  k b a c s      sort by key, bytes, attached, changes, status; again: reverse
  r              remove the chosen segment, after a question: its key is free at
                 once, and the processes that are attached keep the memory
  d              remove all dead segments
  q, Ctrl-C      quit`

const topExamples = `  demo top
  demo top --every 0.2 --store /dev/shm/shared`

func newTop() *cobra.Command {
	every := units.Duration(time.Second)
	cmd := &cobra.Command{
		Use:               "top",
		Short:             "Show the segments, live, on the whole screen",
		Long:              topHelp,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkEvery(cmd, every); err != nil {
				return err
			}
			if _, err := shm.List(storeOptions()...); err != nil { // before the screen is cleared
				return err
			}
			return onScreen(cmd, `use "demo ls --watch" or "demo ls --json"`, func(ctx context.Context) error {
				t := &top{every: time.Duration(every), history: history{}, sortBy: 'k'}
				return t.run(ctx)
			})
		},
	}
	cmd.Flags().Var(&every, "every", "look every TIME, at least 100ms")
	return withHelp(cmd, topExamples, exitPermission)
}

func checkEvery(cmd *cobra.Command, every units.Duration) error {
	if time.Duration(every) < 100*time.Millisecond {
		return usageError{fmt.Errorf("--every %v: want at least 100ms", &every), cmd.CommandPath()}
	}
	return nil
}

// history is what the last look has seen of each segment, by file name.
type history map[string]seen

type seen struct {
	version   uint32
	created   time.Time
	at        time.Time
	lockedBy  uint64 // the ID of the attachment
	lockSince time.Time
}

// row is a segment with what a second look can tell.
type row struct {
	shm.Info
	changes  float64 // each second; -1 at the first look
	lockedIn time.Duration
}

// look makes rows of infos, and keeps what the next look needs.
func (h history) look(infos []shm.Info, now time.Time) []row {
	rows := make([]row, 0, len(infos))
	next := history{}
	for _, info := range infos {
		r := row{Info: info, changes: -1}
		before, known := h[info.Name]
		known = known && before.created.Equal(info.Created)
		s := seen{version: info.Version, created: info.Created, at: now}
		if known {
			r.changes = float64(info.Version-before.version) / max(now.Sub(before.at).Seconds(), 1e-9)
		}
		if info.Owner != nil {
			s.lockedBy, s.lockSince = info.Owner.ID, now
			if known && before.lockedBy == s.lockedBy {
				s.lockSince = before.lockSince
			}
			r.lockedIn = now.Sub(s.lockSince)
		}
		next[info.Name] = s
		rows = append(rows, r)
	}
	clear(h)
	for name, s := range next {
		h[name] = s
	}
	return rows
}

func (r row) changesText() string {
	switch {
	case r.changes < 0:
		return "-"
	case r.changes < 10:
		return strconv.FormatFloat(r.changes, 'f', 1, 64)
	}
	return strconv.FormatFloat(r.changes, 'f', 0, 64)
}

func (r row) pids() string {
	var all []string
	for _, a := range r.Attachments {
		all = append(all, strconv.Itoa(a.PID))
	}
	return strings.Join(all, " ")
}

type top struct {
	every   time.Duration
	screen  tcell.Screen
	history history
	rows    []row
	err     error

	sortBy  rune
	reverse bool
	chosen  string // the file name of the chosen row
	scroll  int
	asking  string // the key to remove, until the question is answered
	news    string
	bad     bool // news is an error
}

func (t *top) run(ctx context.Context) error {
	var err error
	if t.screen, err = newScreen(); err != nil {
		return err
	}
	defer t.screen.Fini()
	t.screen.HideCursor()
	events, quit := make(chan tcell.Event, 16), make(chan struct{})
	defer close(quit)
	go t.screen.ChannelEvents(events, quit)
	tick := time.NewTicker(t.every)
	defer tick.Stop()
	t.look()
	for {
		t.draw()
		select {
		case ev, ok := <-events:
			if !ok || !t.handle(ev) {
				return nil
			}
		case <-tick.C:
			if alone() {
				return nil
			}
			t.look()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (t *top) look() {
	infos, err := shm.List(storeOptions()...)
	if t.err = err; err == nil {
		t.rows = t.history.look(infos, time.Now())
	}
	t.sort()
}

var sorts = map[rune]func(a, b row) int{
	'k': func(a, b row) int { return strings.Compare(a.Key, b.Key) },
	'b': func(a, b row) int { return compare(b.Size, a.Size) },
	'a': func(a, b row) int { return compare(b.Attached, a.Attached) },
	'c': func(a, b row) int { return compare(b.changes, a.changes) },
	's': func(a, b row) int { return strings.Compare(a.Status.String(), b.Status.String()) },
}

func compare[T int | int64 | float64](a, b T) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (t *top) sort() {
	slices.SortStableFunc(t.rows, func(a, b row) int {
		n := sorts[t.sortBy](a, b)
		if t.reverse {
			n = -n
		}
		if n == 0 {
			n = strings.Compare(a.Name, b.Name)
		}
		return n
	})
}

// at returns the index of the chosen row, or -1 if there are no rows.
func (t *top) at() int {
	for i, r := range t.rows {
		if r.Name == t.chosen {
			return i
		}
	}
	return min(0, len(t.rows)-1)
}

func (t *top) handle(ev tcell.Event) bool {
	switch ev := ev.(type) {
	case *tcell.EventResize:
		t.screen.Sync()
	case *tcell.EventKey:
		if t.asking != "" {
			t.answer(ev)
			return true
		}
		return t.press(ev)
	}
	return true
}

func (t *top) press(ev *tcell.EventKey) bool {
	at := t.at()
	switch ev.Key() {
	case tcell.KeyCtrlC, tcell.KeyCtrlQ:
		return false
	case tcell.KeyUp:
		t.choose(at - 1)
	case tcell.KeyDown:
		t.choose(at + 1)
	case tcell.KeyPgUp:
		t.choose(at - t.height())
	case tcell.KeyPgDn:
		t.choose(at + t.height())
	case tcell.KeyHome:
		t.choose(0)
	case tcell.KeyEnd:
		t.choose(len(t.rows) - 1)
	case tcell.KeyRune:
		key := ev.Rune()
		switch {
		case key == 'q':
			return false
		case sorts[key] != nil:
			t.reverse = t.sortBy == key && !t.reverse
			t.sortBy = key
			t.sort()
		case key == 'r' && at >= 0:
			t.chosen = t.rows[at].Name
			t.ask(t.rows[at].Info)
		case key == 'd':
			t.sweep()
		}
	}
	return true
}

func (t *top) choose(i int) {
	if len(t.rows) > 0 {
		t.chosen = t.rows[min(max(i, 0), len(t.rows)-1)].Name
	}
}

// ask asks whether to remove a segment.
func (t *top) ask(info shm.Info) {
	if !wholeKey(info) {
		t.say("the whole key is not known here; \"d\" removes dead segments")
		return
	}
	t.asking = info.Key
	t.say("%s", question(info))
}

// question asks whether to remove a segment, on a line of the screen.
func question(info shm.Info) string {
	before, after := "remove ", "? "+inUse(info)+" (y/n)"
	if info.Status == shm.StatusDead {
		before, after = "remove the dead segment ", "? no process uses it (y/n)"
	}
	return before + showKey(info.Key, lineWidth-2-len(before)-len(after)) + after
}

func (t *top) answer(ev *tcell.EventKey) {
	key := t.asking
	t.asking = ""
	if ev.Key() != tcell.KeyRune || ev.Rune() != 'y' {
		t.say("nothing removed")
		return
	}
	if done, err := removeKey(key, true); err != nil {
		t.complain(err)
	} else {
		t.say("%s", done)
	}
	t.look()
}

func (t *top) sweep() {
	swept, err := shm.Sweep(storeOptions()...)
	if err != nil {
		t.complain(err)
	} else {
		t.say("removed %s", units.Count(len(swept), "dead segment"))
	}
	t.look()
}

func (t *top) say(format string, args ...any) { t.news, t.bad = fmt.Sprintf(format, args...), false }

func (t *top) complain(err error) {
	line, _ := explain(context.Background(), err)
	t.news, t.bad = line, true
}

// Drawing.

func (t *top) height() int { _, h := t.screen.Size(); return max(h-4, 1) }

var topColumns = []column{
	keyColumn, bytesColumn, attachedColumn, {"CHANGES/S", 'c', true, row.changesText}, statusColumn, lockColumn, {"PROCESSES", 0, false, row.pids},
}

func (t *top) draw() {
	s := t.screen
	width, _ := s.Size()
	s.Clear()
	live := 0
	for _, r := range t.rows {
		if r.Status == shm.StatusLive {
			live++
		}
	}
	title := fmt.Sprintf(" %s, %d live, in %s", units.Count(len(t.rows), "segment"), live, storePath())
	drawText(s, 0, 0, layout.Cut(title, width), tcell.StyleDefault.Bold(true))
	lines, widths := cells(topColumns, t.rows, width-1) // the first column is for the mark
	at := t.at()
	t.scroll = min(max(t.scroll, at-t.height()+1), max(at, 0))
	bar := tcell.StyleDefault.Reverse(true)
	drawText(s, 0, 1, strings.Repeat(" ", width), bar)
	t.drawLine(1, lines[0], widths, func(c column) tcell.Style {
		if c.key == t.sortBy {
			return bar.Bold(true).Underline(true)
		}
		return bar
	})
	for y := 0; y < t.height() && t.scroll+y < len(t.rows); y++ {
		r := t.rows[t.scroll+y]
		style := tcell.StyleDefault
		if r.Status != shm.StatusLive {
			style = style.Dim(true)
		}
		if t.scroll+y == at {
			drawText(s, 0, y+2, ">", tcell.StyleDefault.Bold(true))
			style = style.Bold(true)
		}
		t.drawLine(y+2, lines[1+t.scroll+y], widths, func(column) tcell.Style { return style })
	}
	t.drawFoot(width)
	s.Show()
}

// drawLine draws a line of the table, as far as it fits on the screen.
func (t *top) drawLine(y int, line []string, widths []int, style func(column) tcell.Style) {
	screen, _ := t.screen.Size()
	x := 1
	for i, c := range topColumns {
		at := x
		if c.right {
			at += widths[i] - layout.Width(line[i])
		}
		drawText(t.screen, at, y, layout.Cut(line[i], max(screen-at, 0)), style(c))
		x += widths[i] + 2
	}
}

func (t *top) drawFoot(width int) {
	y := t.height() + 2
	style := tcell.StyleDefault
	news := t.news
	if t.err != nil {
		line, _ := explain(context.Background(), t.err)
		news = line
	}
	if t.bad || t.err != nil {
		if style = style.Bold(true); coloursWanted() {
			style = style.Foreground(tcell.ColorRed)
		}
	}
	drawText(t.screen, 0, y, layout.Cut(" "+news, width), style)
	drawText(t.screen, 0, y+1, layout.Cut(" k b a c s: sort   r: remove   d: remove all dead   q: quit", width), tcell.StyleDefault.Dim(true))
}
