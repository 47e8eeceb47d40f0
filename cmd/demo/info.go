package main

import (
	"fmt"
	"io"
	"math"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

const infoHelp = `Describe a segment: its file, the processes that are attached, the one that
holds the lock, and how often the segment has changed.

Looking does not attach, changes nothing, and does not wait. --json prints one
object, as "demo ls --help" describes it.`

const infoExamples = `  demo info frames
  demo info frames --json | jq .attachments`

func newInfo() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "info KEY",
		Short:             "Describe a segment",
		Long:              infoHelp,
		ValidArgsFunction: completeKey(noFiles),
		Args:              oneKey,
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := shm.Stat(args[0], storeOptions()...)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), toJSON(info))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), describe(info))
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return withHelp(cmd, infoExamples, exitNotExist, exitPermission)
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
	line("key", "%s", showKey(info.Key, math.MaxInt))
	line("status", "%s", statusMeaning(info.Status))
	line("size", "%s", size)
	line("version", "%s by processes that may have written", units.Count(int64(info.Version), "unlock"))
	line("created", "%s", info.Created.Format(time.DateTime))
	line("owner", "%s, %s", owner(info.UID), permText(info))
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
