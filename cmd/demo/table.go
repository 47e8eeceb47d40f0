package main

import (
	"fmt"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"time"

	"qshm/cmd/demo/internal/layout"
	"qshm/shm"
)

// The tables of ls and top: one line for each segment.

const (
	lineWidth    = 80 // of a table, unless it says otherwise
	maxShownKey  = 32 // columns
	minShownKey  = 10
	maxShownUser = 16
)

// A column is one of a table's.
type column struct {
	title string
	key   rune // sorts top by this column
	right bool
	text  func(row) string
}

var (
	keyColumn      = column{"KEY", 'k', false, func(r row) string { return showKey(r.Key, maxShownKey) }}
	bytesColumn    = column{"BYTES", 'b', true, func(r row) string { return strconv.FormatInt(r.Size, 10) }}
	attachedColumn = column{"ATTACHED", 'a', true, func(r row) string { return strconv.Itoa(r.Attached) }}
	statusColumn   = column{"STATUS", 's', false, func(r row) string { return r.Status.String() }}
	kindColumn     = column{"KIND", 0, false, func(r row) string { return kind(r.Info) }}
	lockColumn     = column{"LOCKED BY", 0, false, row.lockText}
	ownerColumn    = column{"OWNER", 0, false, func(r row) string { return layout.Shorten(owner(r.UID), maxShownUser) }}
	permColumn     = column{"PERMS", 0, false, func(r row) string { return permText(r.Info) }}
	nameColumn     = column{"NAME", 0, false, func(r row) string { return r.Name }}
)

// cells returns the texts of a table, its titles first, and the widths of its
// columns. The first column is shortened so that a line has at most width columns;
// the last one counts by its title. There are two blanks between columns.
func cells(columns []column, rows []row, width int) (lines [][]string, widths []int) {
	lines = make([][]string, 1+len(rows))
	widths = make([]int, len(columns))
	rest := 0
	for i, c := range columns {
		lines[0] = append(lines[0], c.title)
		for y, r := range rows {
			lines[1+y] = append(lines[1+y], c.text(r))
		}
		for _, line := range lines {
			widths[i] = max(widths[i], layout.Width(line[i]))
		}
		switch {
		case i == len(columns)-1:
			rest += 2 + len(c.title)
		case i > 0:
			rest += 2 + widths[i]
		}
	}
	widths[0] = min(widths[0], max(width-rest, minShownKey))
	for _, line := range lines {
		line[0] = layout.Shorten(line[0], widths[0])
	}
	return lines, widths
}

// printTable returns a table as text.
func printTable(columns []column, rows []row, width int) string {
	var b strings.Builder
	lines, widths := cells(columns, rows, width)
	for _, line := range lines {
		text := ""
		for i, cell := range line {
			pad := strings.Repeat(" ", widths[i]-layout.Width(cell))
			if columns[i].right {
				text += pad + cell + "  "
			} else {
				text += cell + pad + "  "
			}
		}
		b.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return b.String()
}

// showKey shows a key in at most width columns, and in quotes if it could be mistaken
// for something else.
func showKey(key string, width int) string {
	if key == "" {
		return "-" // unknown: no segment has an empty key
	}
	if quoted := strconv.Quote(key); quoted[1:len(quoted)-1] != key || strings.TrimSpace(key) != key || key == "-" {
		key = quoted
	}
	return layout.Shorten(key, width)
}

// lockText says which process holds the lock, and for how long if that is known.
func (r row) lockText() string {
	switch {
	case r.Owner == nil && r.Abandoned:
		return "abandoned"
	case r.Owner == nil:
		return "-"
	case r.lockedIn < time.Second:
		return strconv.Itoa(r.Owner.PID)
	}
	return fmt.Sprintf("%d %v", r.Owner.PID, r.lockedIn.Truncate(time.Second))
}

// owner names a user.
func owner(uid uint32) string {
	if runtime.GOOS == "windows" {
		return "-" // users have no numbers there
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// permText returns the permissions of a segment's file, as chmod(1) takes them.
func permText(info shm.Info) string {
	return "0" + strconv.FormatUint(uint64(info.Perm), 8)
}
