package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"reflect"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/terminal"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

var lsColumns = []segments.Column{
	segments.KeyColumn, segments.BytesColumn, segments.AttachedColumn, segments.StatusColumn, segments.KindColumn, segments.LockColumn, segments.OwnerColumn, segments.PermColumn,
}

// listing is a run of demo ls.
type listing struct {
	out          io.Writer
	long, asJSON bool
	every        units.Duration
}

func newLs() *cobra.Command {
	l := listing{every: units.Duration(time.Second)}
	var watch bool
	cmd := plainCommand("ls", "List the segments there are", func(cmd *cobra.Command) error {
		l.out = cmd.OutOrStdout()
		if err := errors.Join(need(cmd, "watch", "every"), exclude(cmd, "json", "long"), checkEvery(cmd, l.every)); err != nil {
			return err
		}
		if watch {
			return l.watch(cmd.Context())
		}
		infos, err := shm.List(storeOptions()...)
		if err != nil {
			return err
		}
		if l.asJSON {
			all := []segmentJSON{}
			for _, info := range infos {
				all = append(all, toJSON(info))
			}
			return printJSON(l.out, all)
		}
		_, err = io.WriteString(l.out, l.table(infos))
		return err
	})
	cmd.Flags().BoolVarP(&l.long, "long", "l", false, "print whole keys and the names of the files, however wide")
	cmd.Flags().BoolVar(&l.asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print whatever has changed, until Ctrl-C")
	cmd.Flags().Var(&l.every, "every", "with --watch, look every TIME, at least 100ms")
	return withHelp(cmd)
}

// table returns the path of the store and one line for each segment.
func (l *listing) table(infos []shm.Info) string {
	heading := fmt.Sprintf("%s: %s\n", storePath(), units.Count(len(infos), "segment"))
	if len(infos) == 0 {
		return heading
	}
	rows, _ := segments.History{}.Look(infos, time.Now())
	columns, width := lsColumns, segments.LineWidth
	if l.long {
		columns, width = append([]segments.Column{segments.WholeKeyColumn}, append(lsColumns[1:], segments.NameColumn)...), math.MaxInt
	}
	return heading + strings.Join(segments.Lines(columns, rows, width), "\n") + "\n"
}

// watch looks again and again, and prints what has changed.
func (l *listing) watch(ctx context.Context) error {
	show := l.printTables()
	if l.asJSON {
		show = l.printObjects()
	}
	for {
		infos, err := shm.List(storeOptions()...)
		if err != nil {
			return err
		}
		if err := show(infos); err != nil {
			return err
		}
		if err := pause(ctx, time.Duration(l.every)); err != nil {
			return err
		}
	}
}

// printTables returns a function that prints the table if it has changed since the
// last call. On a terminal, each table takes the place of the one before.
func (l *listing) printTables() func([]shm.Info) error {
	before, clear := "", ""
	if terminal.Is(l.out) {
		clear = "\x1b[H\x1b[2J"
	}
	return func(infos []shm.Info) (err error) {
		if text := l.table(infos); text != before {
			before = text
			_, err = io.WriteString(l.out, clear+text)
		}
		return err
	}
}

// printObjects returns a function that prints a line of JSON for each segment that
// has changed since the last call.
func (l *listing) printObjects() func([]shm.Info) error {
	out, before := json.NewEncoder(l.out), map[string]shm.Info{} // by name and ID
	return func(infos []shm.Info) error {
		now := map[string]shm.Info{}
		for _, info := range infos {
			id := fmt.Sprint(info.Name, info.ID)
			now[id] = info
			if was, known := before[id]; known && reflect.DeepEqual(was, info) {
				continue
			}
			if err := out.Encode(toJSON(info)); err != nil {
				return err
			}
		}
		for id, info := range before {
			if _, still := now[id]; !still {
				gone := toJSON(info)
				gone.Status = "gone"
				if err := out.Encode(gone); err != nil {
					return err
				}
			}
		}
		before = now
		return nil
	}
}

// The shape of --json; help/ls.txt documents it.
type (
	segmentJSON struct {
		Key         string           `json:"key"`
		KeyBytes    []byte           `json:"key_base64,omitempty"`
		Name        string           `json:"name"`
		Path        string           `json:"path"`
		Size        int64            `json:"size"`
		UID         uint32           `json:"uid"`
		Owner       string           `json:"owner"`
		Perm        string           `json:"perm"`
		Created     time.Time        `json:"created"`
		Status      string           `json:"status"`
		Kind        string           `json:"kind"`
		Stream      *streamJSON      `json:"stream"`
		Attached    int              `json:"attached"`
		Attachments []attachmentJSON `json:"attachments"`
		LockOwner   *attachmentJSON  `json:"lock_owner"`
		Abandoned   bool             `json:"abandoned"`
		Version     uint32           `json:"version"`
		MaxAttached int              `json:"max_attached"`
		ID          string           `json:"id"`
	}
	streamJSON struct {
		Capacity int          `json:"capacity"`
		Used     int          `json:"used"`
		Sent     uint64       `json:"sent"`
		Writers  int          `json:"writers"`
		Readers  []readerJSON `json:"readers"`
	}
	readerJSON struct {
		PID    int    `json:"pid"`
		ID     string `json:"id"`
		Group  string `json:"group"`
		Latest bool   `json:"latest"`
		Behind int    `json:"behind"`
	}
	attachmentJSON struct {
		PID      int    `json:"pid"`
		ReadOnly bool   `json:"read_only"`
		ID       string `json:"id"`
	}
)

func toJSON(info shm.Info) segmentJSON {
	s := segmentJSON{
		Key: info.Key, Name: info.Name, Path: info.Path, Size: info.Size, UID: info.UID, Owner: segments.Owner(info.UID),
		Perm: segments.Perm(info), Created: info.Created, Status: info.Status.String(), Kind: segments.Kind(info),
		Attached: info.Attached, Attachments: []attachmentJSON{}, Abandoned: info.Abandoned, Version: info.Version,
		MaxAttached: info.MaxAttached, ID: fmt.Sprintf("%016x", info.ID),
	}
	if !utf8.ValidString(info.Key) {
		s.KeyBytes = []byte(info.Key)
	}
	for _, a := range info.Attachments {
		s.Attachments = append(s.Attachments, attachmentJSON{a.PID, a.ReadOnly, fmt.Sprintf("%016x", a.ID)})
	}
	if a := info.Owner; a != nil {
		s.LockOwner = &attachmentJSON{a.PID, a.ReadOnly, fmt.Sprintf("%016x", a.ID)}
	}
	return s
}

// printJSON prints JSON for people to read, in several lines.
func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}
