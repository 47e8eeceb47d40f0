package terminal

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
	"unicode"

	"github.com/gdamore/tcell/v2"

	"qshm/cmd/demo/internal/layout"
)

// A Screen is the whole screen, for a program that waits for keys and changes.
type Screen struct {
	tcell.Screen
	news string // what just happened
	bad  bool   // news is an error
}

// NewScreen takes the terminal over, until Fini.
func NewScreen() (*Screen, error) {
	os.Setenv("LC_ALL", "C.UTF-8") // terminals understand it, also where no locale is set, as in most containers
	s, err := tcell.NewScreen()
	if err == nil {
		err = s.Init()
	}
	if errors.Is(err, tcell.ErrTermNotFound) {
		return nil, fmt.Errorf("this kind of terminal is not known; try TERM=xterm: %w", err)
	}
	if err != nil {
		return nil, fmt.Errorf("the terminal cannot be used: %w", err)
	}
	return &Screen{Screen: s}, nil
}

// A Program is what runs on a Screen.
type Program interface {
	Draw()
	Handle(ev tcell.Event) (more bool) // false to quit
	Look()                             // called from time to time
}

// Run runs p until the user quits or ctx ends. It also calls what it gets from
// changes, and ends with an error that this returns.
func (s *Screen) Run(ctx context.Context, p Program, every time.Duration, changes <-chan func() error) error {
	events, quit := make(chan tcell.Event, 64), make(chan struct{})
	defer close(quit)
	go s.ChannelEvents(events, quit)
	look := time.NewTicker(every)
	defer look.Stop()
	for {
		p.Draw()
		s.Show()
		select {
		case ev, ok := <-events:
			for more := true; more; { // draw once for all keys that are there
				if _, resized := ev.(*tcell.EventResize); resized {
					s.Sync()
				} else if !ok || !p.Handle(ev) {
					return nil
				}
				select {
				case ev, ok = <-events:
				default:
					more = false
				}
			}
		case change := <-changes:
			if err := change(); err != nil {
				return err
			}
		case <-look.C:
			if alone() {
				return nil
			}
			p.Look()
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Put draws text in one row, as far as it fits.
func (s *Screen) Put(x, y int, text string, style tcell.Style) {
	for text != "" {
		n, w := layout.First(text, x)
		cluster := text[:n]
		if unicode.IsControl(rune(cluster[0])) {
			cluster = " "
		}
		s.Screen.Put(x, y, cluster, style)
		x += w
		text = text[n:]
	}
}

// PutBar draws text in one row, in a style that spans the screen.
func (s *Screen) PutBar(y int, text string, style tcell.Style) {
	width, _ := s.Size()
	s.Put(0, y, text+strings.Repeat(" ", max(width-layout.Width(text), 0)), style)
}

// Say keeps a line of news.
func (s *Screen) Say(format string, args ...any) {
	s.news, s.bad = fmt.Sprintf(format, args...), false
}

// Complain keeps an error as news.
func (s *Screen) Complain(format string, args ...any) {
	s.news, s.bad = strings.TrimPrefix(fmt.Sprintf(format, args...), "shm: "), true
}

// Calm ends a complaint, after something has gone well.
func (s *Screen) Calm() {
	if s.bad {
		s.news, s.bad = "", false
	}
}

// PutNews draws the news in one row, and returns how many columns they take.
func (s *Screen) PutNews(y int) (width int) {
	style := tcell.StyleDefault
	if s.bad {
		if style = style.Bold(true); coloursWanted() {
			style = style.Foreground(tcell.ColorRed)
		}
	}
	s.Put(1, y, s.news, style)
	return 1 + layout.Width(s.news)
}
