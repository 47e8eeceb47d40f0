package segments

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"qshm/cmd/demo/internal/layout"
	"qshm/shm"
)

const (
	LineWidth    = 80 // of a table, unless it says otherwise
	MaxShownKey  = 32 // columns
	minShownKey  = 10
	maxShownUser = 16
)

// A Row is a segment with what a second look can tell.
type Row struct {
	shm.Info
	Changes       float64 // each second; -1 at the first look
	at, lockSince time.Time
}

// A History is what the last look has seen of each segment, by file name.
type History map[string]Row

// Look makes rows of infos, and returns what the next look needs.
func (h History) Look(infos []shm.Info, now time.Time) (rows []Row, next History) {
	next = History{}
	for _, info := range infos {
		r := Row{Info: info, Changes: -1, at: now, lockSince: now}
		if before, known := h[info.Name]; known && before.Created.Equal(info.Created) {
			r.Changes = float64(info.Version-before.Version) / max(now.Sub(before.at).Seconds(), 1e-9)
			if info.Owner != nil && before.Owner != nil && before.Owner.ID == info.Owner.ID {
				r.lockSince = before.lockSince
			}
		}
		next[info.Name] = r
		rows = append(rows, r)
	}
	return rows, next
}

// A Column is one of a table's.
type Column struct {
	Title string
	Sorts rune // the key that sorts top by this column
	Right bool
	text  func(Row) string
}

var (
	KeyColumn      = Column{"KEY", 'k', false, func(r Row) string { return ShowKey(r.Key, MaxShownKey) }}
	WholeKeyColumn = Column{"KEY", 0, false, func(r Row) string { return ShowKey(r.Key, math.MaxInt) }}
	BytesColumn    = Column{"BYTES", 'b', true, func(r Row) string { return strconv.FormatInt(r.Size, 10) }}
	AttachedColumn = Column{"ATTACHED", 'a', true, func(r Row) string { return strconv.Itoa(r.Attached) }}
	ChangesColumn  = Column{"CHANGES/S", 'c', true, Row.changes}
	StatusColumn   = Column{"STATUS", 's', false, func(r Row) string { return r.Status.String() }}
	KindColumn     = Column{"KIND", 0, false, func(r Row) string { return Kind(r.Info) }}
	LockColumn     = Column{"LOCKED BY", 0, false, Row.lock}
	OwnerColumn    = Column{"OWNER", 0, false, func(r Row) string { return layout.Shorten(Owner(r.UID), maxShownUser) }}
	PermColumn     = Column{"PERMS", 0, false, func(r Row) string { return Perm(r.Info) }}
	NameColumn     = Column{"NAME", 0, false, func(r Row) string { return r.Name }}
	PIDColumn      = Column{"PROCESSES", 0, false, Row.pids}
)

func (r Row) changes() string {
	switch {
	case r.Changes < 0:
		return "-"
	case r.Changes < 10:
		return strconv.FormatFloat(r.Changes, 'f', 1, 64)
	}
	return strconv.FormatFloat(r.Changes, 'f', 0, 64)
}

// lock says which process holds the lock, and for how long if that is known.
func (r Row) lock() string {
	switch held := r.at.Sub(r.lockSince).Truncate(time.Second); {
	case r.Owner == nil && r.Abandoned:
		return "abandoned"
	case r.Owner == nil:
		return "-"
	case held == 0:
		return strconv.Itoa(r.Owner.PID)
	default:
		return fmt.Sprintf("%d %v", r.Owner.PID, held)
	}
}

func (r Row) pids() string {
	var all []string
	for _, a := range r.Attachments {
		all = append(all, strconv.Itoa(a.PID))
	}
	return strings.Join(all, " ")
}

// Lines returns the lines of a table, its titles first, without blanks at their ends.
// The first column is shortened so that a line has at most width columns; the last one
// counts by its title. There are two blanks between columns.
func Lines(columns []Column, rows []Row, width int) []string {
	cells := make([][]string, 1+len(rows))
	widths := make([]int, len(columns))
	rest := 0
	for i, c := range columns {
		cells[0] = append(cells[0], c.Title)
		for y, r := range rows {
			cells[1+y] = append(cells[1+y], c.text(r))
		}
		for _, line := range cells {
			widths[i] = max(widths[i], layout.Width(line[i]))
		}
		switch {
		case i == len(columns)-1:
			rest += 2 + len(c.Title)
		case i > 0:
			rest += 2 + widths[i]
		}
	}
	widths[0] = min(widths[0], max(width-rest, minShownKey))
	lines := make([]string, len(cells))
	for y, line := range cells {
		line[0] = layout.Shorten(line[0], widths[0])
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-layout.Width(cell))
			if columns[i].Right {
				cell, pad = pad+cell, ""
			}
			lines[y] += cell + pad + "  "
		}
		lines[y] = strings.TrimRight(lines[y], " ")
	}
	return lines
}
