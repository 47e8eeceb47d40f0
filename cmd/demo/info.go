package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/segments"
	"qshm/cmd/demo/internal/units"
	"qshm/shm"
	"qshm/shm/stream"
)

func newInfo() *cobra.Command {
	var asJSON bool
	cmd := keyCommand("info", "Describe a segment", func(cmd *cobra.Command, key string) error {
		info, err := shm.Stat(key, storeOptions()...)
		if err != nil {
			return err
		}
		ring := lookIntoStream(info)
		if asJSON {
			object := toJSON(info)
			object.Stream = ring
			return printJSON(cmd.OutOrStdout(), object)
		}
		_, err = io.WriteString(cmd.OutOrStdout(), describe(info)+ring.describe())
		return err
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return withHelp(cmd)
}

// describe says in lines what is known about a segment.
func describe(info shm.Info) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	size, inUnits := units.Count(info.Size, "byte"), units.Format(info.Size)
	if inUnits != size {
		size += ", " + inUnits
	}
	line("key", "%s", segments.ShowKey(info.Key, math.MaxInt))
	line("status", "%s", statusMeaning(info.Status))
	line("size", "%s", size)
	line("version", "%s by processes that may have written", units.Count(int64(info.Version), "unlock"))
	line("created", "%s", info.Created.Format(time.DateTime))
	line("owner", "%s, %s", segments.Owner(info.UID), segments.Perm(info))
	line("store", "%s", filepath.Dir(info.Path))
	line("file", "%s", info.Name)
	line("id", "%016x", info.ID)
	switch {
	case info.Owner != nil:
		line("lock", "held by process %d", info.Owner.PID)
	case info.Abandoned:
		line("lock", "abandoned: the last process that held it died while it did")
	default:
		line("lock", "free")
	}
	line("attached", "%d of at most %d", info.Attached, info.MaxAttached)
	for _, a := range info.Attachments {
		mode := "reads and writes"
		if a.ReadOnly {
			mode = "read-only"
		}
		line("", "process %-7d %-16s  (attachment %016x)", a.PID, mode, a.ID)
	}
	return b.String()
}

func statusMeaning(s shm.Status) string {
	switch s {
	case shm.StatusDead:
		return "dead: every process that was attached has died"
	case shm.StatusRemoved:
		return "removed: the key is free again, but processes are still attached"
	}
	return s.String()
}

// lookIntoStream describes the stream in a segment; nil if it is none, or not alive.
func lookIntoStream(info shm.Info) *streamJSON {
	if info.Status != shm.StatusLive || segments.Kind(info) != "stream" {
		return nil
	}
	is, err := stream.Stat(info.Key, storeOptions()...)
	if err != nil {
		return nil
	}
	s := &streamJSON{is.Capacity, is.Used, is.Sent, is.Writers, []readerJSON{}}
	for _, r := range is.Readers {
		s.Readers = append(s.Readers, readerJSON{r.PID, fmt.Sprintf("%016x", r.ID), r.Group, r.Latest, r.Behind})
	}
	return s
}

// describe says in lines what is known about a stream.
func (s *streamJSON) describe() string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%-12sof %s, %s used\n", "ring", units.Format(int64(s.Capacity)), units.Count(s.Used, "byte"))
	fmt.Fprintf(&b, "%-12s%s, by %s that may send more\n", "sent", units.Count(int64(s.Sent), "message"), units.Count(s.Writers, "writer"))
	fmt.Fprintf(&b, "%-12s%d\n", "readers", len(s.Readers))
	for _, r := range s.Readers {
		what := ""
		if r.Group != "" {
			what = fmt.Sprintf(", of the group %q", r.Group)
		}
		if r.Latest {
			what = ", only the latest"
		}
		fmt.Fprintf(&b, "%-12sprocess %-7d %s behind%s\n", "", r.PID, units.Count(r.Behind, "byte"), what)
	}
	return b.String()
}
