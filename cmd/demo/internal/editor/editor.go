// Package editor is the full screen of demo edit and demo view.
package editor

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/gdamore/tcell/v2"

	"qshm/cmd/demo/internal/editor/doc"
	"qshm/cmd/demo/internal/layout"
	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

type editor struct {
	*terminal.Screen
	doc   *doc.Doc
	seg   *shm.Segment
	views bool // and does not edit

	text    string // of the segment, at version
	version uint32
	cursor  int  // offset in text
	goal    int  // column to keep when moving up and down; -1: the cursor's
	top     int  // first row on the screen
	follow  bool // the view shows the place of the last change

	peers map[uint64]shm.Attachment // the editors and viewers, this one too

	pasting bool
	pasted  strings.Builder
}

// lookEvery is how often a screen looks who edits and views. It learns of changes of the
// text at once.
const lookEvery = time.Second

// Run shows the text in seg until the user quits. A read-only attachment views; any
// other one edits.
func Run(ctx context.Context, seg *shm.Segment) error {
	d, err := doc.Open(seg)
	if errors.Is(err, doc.ErrForeign) {
		return fmt.Errorf("%q has other contents (%s, no text of \"demo edit\"); \"demo read --hex\" shows them",
			seg.Key(), units.Format(int64(seg.Size())))
	}
	if err != nil {
		return err
	}
	e := &editor{doc: d, seg: seg, views: seg.ReadOnly(), follow: seg.ReadOnly(), goal: -1}
	if e.Screen, err = terminal.NewScreen(); err != nil {
		return err
	}
	defer e.Fini()
	e.EnablePaste()
	first, version, err := d.Load()
	if err != nil {
		return err
	}
	e.version = version
	e.adopt(first)
	e.Look()
	e.Say("type: every keystroke is shared")
	if e.views {
		e.Say("showing what is typed")
	}

	ctx, cancel := context.WithCancel(ctx)
	changes, watched := make(chan func() error), make(chan struct{})
	go func() {
		e.watch(ctx, version, changes)
		close(watched)
	}()
	defer func() {
		cancel()
		select {
		case <-watched: // a Wait in progress would keep the attachment
		case <-time.After(lookEvery): // it waits for the lock; the process ends anyway
		}
	}()
	return e.Screen.Run(ctx, e, lookEvery, changes)
}

// watch passes on each change. Of several changes while the screen is busy it passes
// on the last.
func (e *editor) watch(ctx context.Context, version uint32, changes chan<- func() error) {
	for {
		err := e.doc.Wait(ctx, version)
		now := ""
		if err == nil {
			now, version, err = e.doc.Load()
		}
		seen := version
		change := func() error {
			if err == nil && int32(seen-e.version) >= 0 { // else from before this process's own last change
				e.version = seen
				e.adopt(now)
			}
			return err
		}
		select {
		case changes <- change:
		case <-ctx.Done():
		}
		if err != nil {
			return
		}
	}
}

// adopt replaces the text by the one that another process has made of it.
func (e *editor) adopt(now string) {
	if now == e.text {
		return
	}
	if e.follow {
		_, suffix := layout.Changed(e.text, now)
		e.cursor = layout.Follow(now, now, len(now)-suffix)
	} else {
		e.cursor = layout.Follow(e.text, now, e.cursor)
	}
	e.text, e.goal = now, -1
}

// Look reports the editors and viewers that have come and gone.
func (e *editor) Look() {
	info, err := e.seg.Info()
	if err != nil {
		e.Complain("%v", err)
		return
	}
	before := e.peers
	e.peers = map[uint64]shm.Attachment{}
	for _, a := range info.Attachments {
		if e.peers[a.ID] = a; before != nil && before[a.ID].ID == 0 {
			e.Say("%s %d has come", role(a), a.PID)
		}
	}
	for id, a := range before {
		if e.peers[id].ID == 0 {
			e.Say("%s %d has gone", role(a), a.PID)
		}
	}
}

func role(a shm.Attachment) string {
	if a.ReadOnly {
		return "viewer"
	}
	return "editor"
}

func (e *editor) Handle(ev tcell.Event) (more bool) {
	switch ev := ev.(type) {
	case *tcell.EventPaste:
		if e.pasting = ev.Start(); !e.pasting {
			e.insert(e.pasted.String())
			e.pasted.Reset()
		}
	case *tcell.EventKey:
		if e.pasting { // it becomes one change
			e.pasted.WriteString(typed(ev))
			return true
		}
		return e.press(ev)
	}
	return true
}

// typed returns the text that a key stands for.
func typed(ev *tcell.EventKey) string {
	switch ev.Key() {
	case tcell.KeyRune:
		return string(ev.Rune())
	case tcell.KeyEnter, tcell.KeyLF:
		return "\n"
	case tcell.KeyTab:
		return "\t"
	}
	return ""
}

func (e *editor) press(ev *tcell.EventKey) bool {
	switch ev.Key() {
	case tcell.KeyCtrlQ, tcell.KeyCtrlC:
		return false
	case tcell.KeyLeft:
		e.move(layout.Previous(e.text, e.cursor))
	case tcell.KeyRight:
		e.move(layout.Next(e.text, e.cursor))
	case tcell.KeyUp:
		e.moveRows(-1)
	case tcell.KeyDown:
		e.moveRows(1)
	case tcell.KeyPgUp:
		e.moveRows(1 - e.height())
	case tcell.KeyPgDn:
		e.moveRows(e.height() - 1)
	case tcell.KeyHome, tcell.KeyCtrlA:
		e.move(e.row().Start)
	case tcell.KeyEnd, tcell.KeyCtrlE:
		if e.views {
			e.move(len(e.text))
			e.follow = true
			e.Say("following")
			return true
		}
		e.move(e.row().End)
	default:
		if !e.views {
			e.change(ev)
		} else if ev.Key() == tcell.KeyRune && ev.Rune() == 'q' {
			return false
		}
	}
	return true
}

// change does what a key does to the text.
func (e *editor) change(ev *tcell.EventKey) {
	switch ev.Key() {
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		e.delete(func() int { return layout.Previous(e.text, e.cursor) })
	case tcell.KeyDelete, tcell.KeyCtrlD:
		e.delete(func() int { return layout.Next(e.text, e.cursor) })
	case tcell.KeyCtrlK:
		e.delete(func() int {
			if end := strings.IndexByte(e.text[e.cursor:], '\n'); end > 0 {
				return e.cursor + end
			} else if end == 0 {
				return e.cursor + 1
			}
			return len(e.text)
		})
	case tcell.KeyCtrlU:
		e.delete(func() int { return strings.LastIndexByte(e.text[:e.cursor], '\n') + 1 })
	default:
		e.insert(typed(ev))
	}
}

// edit changes the text while this process holds the lock. It first adopts what other
// processes have typed meanwhile.
func (e *editor) edit(fn func()) {
	version, err := e.doc.Edit(func(now string) string {
		e.adopt(now)
		fn()
		return e.text
	})
	e.goal = -1
	if err != nil {
		e.Complain("%v", err)
		return
	}
	e.version = version // watch may have loaded an older one
}

func (e *editor) insert(added string) {
	added = strings.Map(printable, strings.ToValidUTF8(added, "\uFFFD"))
	if added == "" {
		return
	}
	e.edit(func() {
		room, err := e.doc.MakeRoom(len(e.text) + len(added))
		fits := layout.Fit(added, room-len(e.text))
		e.text = e.text[:e.cursor] + fits + e.text[e.cursor:]
		e.cursor += len(fits)
		switch {
		case len(fits) == len(added):
			e.Calm()
		case err == nil || errors.Is(err, shm.ErrNoSpace):
			e.Complain("kept %d of %s: the store is full", len(fits), units.Count(len(added), "byte"))
		default:
			e.Complain("kept %d of %s: %v", len(fits), units.Count(len(added), "byte"), err)
		}
	})
}

// printable drops characters that the screen cannot show.
func printable(r rune) rune {
	if r != '\n' && r != '\t' && unicode.IsControl(r) {
		return -1
	}
	return r
}

// delete deletes the text between the cursor and another place.
func (e *editor) delete(to func() int) {
	e.edit(func() {
		from, end := e.cursor, to()
		if end < from {
			from, end = end, from
		}
		e.text = e.text[:from] + e.text[end:]
		e.cursor = from
		if end > from {
			e.Calm()
		}
	})
}

// Moving.

func (e *editor) width() int  { w, _ := e.Size(); return max(w, 2) }
func (e *editor) height() int { _, h := e.Size(); return max(h-2, 1) }

func (e *editor) rows() []layout.Row { return layout.Rows(e.text, e.width()) }

func (e *editor) row() layout.Row {
	rows := e.rows()
	return rows[layout.RowOf(rows, e.cursor)]
}

func (e *editor) move(to int) {
	e.cursor, e.goal, e.follow = to, -1, false
}

func (e *editor) moveRows(n int) {
	rows := e.rows()
	at := layout.RowOf(rows, e.cursor)
	if e.goal < 0 {
		e.goal = layout.Column(e.text, rows[at], e.cursor)
	}
	at = min(max(at+n, 0), len(rows)-1)
	e.cursor, e.follow = layout.At(e.text, rows[at], e.goal), false
}

// Drawing.

func (e *editor) Draw() {
	e.Clear()
	rows, height := e.rows(), e.height()
	at := layout.RowOf(rows, e.cursor)
	e.top = min(max(e.top, at-height+1), at)
	e.top = max(min(e.top, len(rows)-height), 0)
	for y := 0; y < height && e.top+y < len(rows); y++ {
		row := rows[e.top+y]
		e.Put(0, y, e.text[row.Start:row.End], tcell.StyleDefault)
	}
	x := layout.Column(e.text, rows[at], e.cursor)
	if !e.views || !e.follow {
		e.ShowCursor(min(x, e.width()-1), at-e.top)
	} else {
		e.HideCursor()
	}
	e.drawStatus(height)
}

// drawStatus draws the two lines at the bottom: the state, and what has just happened.
// A narrow screen cuts their ends.
func (e *editor) drawStatus(y int) {
	command := "edit"
	if e.views {
		command = "view"
	}
	e.PutBar(y, fmt.Sprintf(" %s %s  %s in %s  version %d  %s", command, segments.ShowKey(e.seg.Key(), segments.MaxShownKey),
		units.Count(len(e.text), "byte"), units.Format(int64(e.seg.Size())), e.version, e.present()), tcell.StyleDefault.Reverse(true))
	used := e.PutNews(y + 1)
	if keys := "Ctrl-Q quits "; used+2+len(keys) <= e.width() {
		e.Put(e.width()-len(keys), y+1, keys, tcell.StyleDefault.Dim(true))
	}
}

// present counts the editors and viewers.
func (e *editor) present() string {
	count := map[string]int{}
	for _, a := range e.peers {
		count[role(a)]++
	}
	return units.Count(count["editor"], "editor") + ", " + units.Count(count["viewer"], "viewer")
}
