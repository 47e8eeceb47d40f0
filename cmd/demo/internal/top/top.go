// Package top is the full screen of demo top: the segments of a store, live.
package top

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gdamore/tcell/v2"

	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

type top struct {
	*terminal.Screen
	dir     string // of the store
	store   []shm.Option
	history segments.History
	rows    []segments.Row
	failed  bool // the last look has failed

	sortBy  rune
	reverse bool
	chosen  string // the file name of the chosen row
	scroll  int
	asking  *shm.Info // whether to remove it; nil: no question is open
}

// Run shows the segments of the store in dir, which the options name, until the user
// quits. It looks every so often.
func Run(ctx context.Context, dir string, every time.Duration, store ...shm.Option) error {
	screen, err := terminal.NewScreen()
	if err != nil {
		return err
	}
	defer screen.Fini()
	screen.HideCursor()
	t := &top{Screen: screen, dir: dir, store: store, sortBy: 'k'}
	t.Look()
	return screen.Run(ctx, t, every, nil)
}

// Look looks at the store.
func (t *top) Look() {
	infos, err := shm.List(t.store...)
	if err != nil {
		t.Complain("%v", err)
	} else {
		t.rows, t.history = t.history.Look(infos, time.Now())
		if t.failed {
			t.Calm()
		}
	}
	t.failed = err != nil
	t.sort()
}

var sorts = map[rune]func(a, b segments.Row) int{
	'k': func(a, b segments.Row) int { return strings.Compare(a.Key, b.Key) },
	'b': func(a, b segments.Row) int { return cmp.Compare(b.Size, a.Size) },
	'a': func(a, b segments.Row) int { return cmp.Compare(b.Attached, a.Attached) },
	'c': func(a, b segments.Row) int { return cmp.Compare(b.Changes, a.Changes) },
	's': func(a, b segments.Row) int { return strings.Compare(a.Status.String(), b.Status.String()) },
}

func (t *top) sort() {
	slices.SortStableFunc(t.rows, func(a, b segments.Row) int {
		n := sorts[t.sortBy](a, b)
		if t.reverse {
			n = -n
		}
		return cmp.Or(n, strings.Compare(a.Name, b.Name))
	})
}

// at returns the index of the chosen row, or -1 if there are no rows.
func (t *top) at() int {
	i := slices.IndexFunc(t.rows, func(r segments.Row) bool { return r.Name == t.chosen })
	return max(i, min(0, len(t.rows)-1))
}

func (t *top) Handle(ev tcell.Event) (more bool) {
	key, ok := ev.(*tcell.EventKey)
	if !ok {
		return true
	}
	if t.asking != nil {
		t.answer(key.Key() == tcell.KeyRune && key.Rune() == 'y')
		return true
	}
	at := t.at()
	switch key.Key() {
	case tcell.KeyCtrlC, tcell.KeyCtrlQ:
		return false
	case tcell.KeyUp:
		t.choose(at - 1)
	case tcell.KeyDown:
		t.choose(at + 1)
	case tcell.KeyRune:
		return t.press(key.Rune(), at)
	}
	return true
}

func (t *top) press(key rune, at int) (more bool) {
	switch {
	case key == 'q':
		return false
	case sorts[key] != nil:
		t.reverse = t.sortBy == key && !t.reverse
		t.sortBy = key
		t.sort()
	case key == 'r' && at >= 0 && segments.HasKey(t.rows[at].Info):
		t.choose(at)
		t.asking = &t.rows[at].Info
		t.Say("%s", question(*t.asking))
	case key == 'r' && at >= 0:
		t.Say("the whole key is not known here; \"d\" removes dead segments")
	case key == 'd':
		swept, err := shm.Sweep(t.store...)
		t.Look()
		t.report(err, "removed %s", units.Count(len(swept), "dead segment"))
	}
	return true
}

func (t *top) choose(i int) {
	if len(t.rows) > 0 {
		t.chosen = t.rows[min(max(i, 0), len(t.rows)-1)].Name
	}
}

// report says what was done, or what went wrong.
func (t *top) report(err error, format string, args ...any) {
	if err != nil {
		t.Complain("%v", err)
	} else {
		t.Say(format, args...)
	}
}

// question asks whether to remove a segment, on a line of the screen.
func question(info shm.Info) string {
	before, after := "remove ", "? "+segments.InUse(info)+" (y/n)"
	if info.Status == shm.StatusDead {
		before, after = "remove the dead segment ", "? no process uses it (y/n)"
	}
	return before + segments.ShowKey(info.Key, segments.LineWidth-2-len(before)-len(after)) + after
}

func (t *top) answer(yes bool) {
	info := *t.asking
	t.asking = nil
	if !yes {
		t.Say("nothing removed")
		return
	}
	done, err := segments.Remove(info.Key, info, t.store...)
	t.Look()
	t.report(err, "%s", done)
}

// Drawing.

func (t *top) height() int { _, h := t.Size(); return max(h-4, 1) }

var columns = []segments.Column{
	segments.KeyColumn, segments.BytesColumn, segments.AttachedColumn, segments.ChangesColumn, segments.StatusColumn, segments.LockColumn, segments.PIDColumn,
}

func (t *top) Draw() {
	width, _ := t.Size()
	t.Clear()
	live := 0
	for _, r := range t.rows {
		if r.Status == shm.StatusLive {
			live++
		}
	}
	t.Put(1, 0, fmt.Sprintf("%s, %d live, in %s", units.Count(len(t.rows), "segment"), live, t.dir), tcell.StyleDefault.Bold(true))
	lines := segments.Lines(columns, t.rows, width-1) // the first column is for the mark
	bar := tcell.StyleDefault.Reverse(true)
	t.PutBar(1, " "+lines[0], bar)
	for _, c := range columns {
		if c.Sorts == t.sortBy {
			t.Put(1+strings.Index(lines[0], c.Title), 1, c.Title, bar.Bold(true).Underline(true))
		}
	}
	at := t.at()
	t.scroll = min(max(t.scroll, at-t.height()+1), max(at, 0))
	for y := 0; y < t.height() && t.scroll+y < len(t.rows); y++ {
		i := t.scroll + y
		style, mark := tcell.StyleDefault.Dim(t.rows[i].Status != shm.StatusLive), " "
		if i == at {
			style, mark = style.Bold(true), ">"
		}
		t.Put(0, y+2, mark+lines[1+i], style)
	}
	t.PutNews(t.height() + 2)
	t.Put(1, t.height()+3, "k b a c s: sort   r: remove   d: remove all dead   q: quit", tcell.StyleDefault.Dim(true))
}
