package main

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/layout"
	"qshm/shm"
)

const topHelp = `Show the segments of a store, live, on the whole screen.

CHANGES/S is how often a segment was unlocked by somebody who may have written,
each second. LOCKED BY is the process that holds the lock, and for how long it
has been seen to.

Keys:
  Up, Down       choose a segment
  k b a c s      sort by key, bytes, attached, changes, status; again: reverse
  r              remove the chosen one (asks first): its key is free at once, and
                 who is attached keeps the memory
  d              remove all that are dead
  q, Ctrl-C      quit`

func newTop() *cobra.Command {
	every := time.Second
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
			if _, err := shm.List(storeOptions()...); err != nil { // rather here than on a screen
				return err
			}
			return onScreen(cmd, "use `demo ls --watch` or `demo ls --json`", func(ctx context.Context) error {
				t := &top{every: every, history: history{}, sortBy: 'k'}
				return t.run(ctx)
			})
		},
	}
	cmd.Flags().DurationVar(&every, "every", every, "how often to look, at least `TIME` 100ms")
	return cmd
}

func checkEvery(cmd *cobra.Command, every time.Duration) error {
	if every < 100*time.Millisecond {
		return usageError{fmt.Errorf("--every %v: want at least 100ms", every), cmd.CommandPath()}
	}
	return nil
}

// history is what was seen of each segment before, by file name.
type history map[string]seen

type seen struct {
	version   uint32
	created   time.Time
	at        time.Time
	lockedBy  uint64 // the ID of the attachment
	lockSince time.Time
}

// row is a segment with what only looking twice can tell.
type row struct {
	shm.Info
	changes  float64 // each second; -1 where it was not seen before
	lockedIn time.Duration
}

// look makes rows of infos, and remembers.
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

func (r row) lockText() string {
	if r.Owner == nil {
		return "-"
	}
	if r.lockedIn < time.Second {
		return strconv.Itoa(r.Owner.PID)
	}
	return fmt.Sprintf("%d %v", r.Owner.PID, r.lockedIn.Truncate(time.Second))
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
	asking  string // the key to remove, while asking
	news    string
	bad     bool
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

// at is which row is chosen; -1 if there is none.
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
			t.chosen, t.asking = t.rows[at].Name, t.rows[at].Key
			t.say("remove %s? its %d attached keep the memory; y removes, any other key does not", showKey(t.asking), t.rows[at].Attached)
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

func (t *top) answer(ev *tcell.EventKey) {
	key := t.asking
	t.asking = ""
	if ev.Key() != tcell.KeyRune || ev.Rune() != 'y' {
		t.say("nothing removed")
		return
	}
	if err := shm.Remove(key, storeOptions()...); err != nil {
		t.complain(err)
	} else {
		t.say("removed %s", showKey(key))
	}
	t.look()
}

func (t *top) sweep() {
	swept, err := shm.Sweep(storeOptions()...)
	if err != nil {
		t.complain(err)
	} else {
		t.say("removed %d that were dead", len(swept))
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

var topColumns = []struct {
	title string
	key   rune // sorts by it
	right bool
	text  func(row) string
}{
	{"KEY", 'k', false, func(r row) string { return showKey(r.Key) }},
	{"BYTES", 'b', true, func(r row) string { return strconv.FormatInt(r.Size, 10) }},
	{"ATTACHED", 'a', true, func(r row) string { return strconv.Itoa(r.Attached) }},
	{"CHANGES/S", 'c', true, row.changesText},
	{"STATUS", 's', false, func(r row) string { return r.Status.String() }},
	{"LOCKED BY", 0, false, row.lockText},
	{"PROCESSES", 0, false, row.pids},
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
	drawText(s, 0, 0, layout.Cut(fmt.Sprintf(" %d segment%s, %d live", len(t.rows), plural(len(t.rows)), live), width), tcell.StyleDefault.Bold(true))
	widths := make([]int, len(topColumns))
	for i, c := range topColumns {
		widths[i] = len(c.title) + 2
		for _, r := range t.rows {
			widths[i] = max(widths[i], columns(c.text(r))+2)
		}
	}
	at := t.at()
	t.scroll = min(max(t.scroll, at-t.height()+1), max(at, 0))
	bar := tcell.StyleDefault.Reverse(true)
	drawText(s, 0, 1, strings.Repeat(" ", width), bar)
	x := 1
	for i, c := range topColumns {
		style := bar
		if c.key == t.sortBy {
			style = style.Bold(true).Underline(true)
		}
		t.cell(x, 1, widths[i], c.title, c.right, style)
		x += widths[i]
	}
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
		x := 1
		for i, c := range topColumns {
			t.cell(x, y+2, widths[i], c.text(r), c.right, style)
			x += widths[i]
		}
	}
	t.drawFoot(width)
	s.Show()
}

func columns(text string) int {
	n := 0
	for i := 0; i < len(text); {
		length, width := layout.First(text[i:], n)
		i += length
		n += width
	}
	return n
}

func (t *top) cell(x, y, width int, text string, right bool, style tcell.Style) {
	screen, _ := t.screen.Size()
	if right {
		x += width - 2 - columns(text)
	}
	drawText(t.screen, x, y, layout.Cut(text, max(screen-x, 0)), style)
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
	drawText(t.screen, 0, y+1, layout.Cut(" k b a c s sort  r remove  d sweep the dead  q quit", width), tcell.StyleDefault.Dim(true))
}

// watchTable is ls --watch: the table again whenever it has changed. On a
// terminal each takes the place of the one before.
func watchTable(ctx context.Context, out io.Writer, every time.Duration) error {
	before := ""
	for {
		infos, err := shm.List(storeOptions()...)
		if err != nil {
			return err
		}
		var b strings.Builder
		if err := printTable(&b, infos); err != nil {
			return err
		}
		if table := b.String(); table != before {
			text := table
			switch {
			case isTerminal(out):
				text = "\x1b[H\x1b[2J" + time.Now().Format(time.TimeOnly) + "\n" + table
			case before != "":
				text = "\n" + table
			}
			if _, err := io.WriteString(out, text); err != nil {
				return err
			}
			before = table
		}
		if err := pause(ctx, every); err != nil {
			return err
		}
	}
}
