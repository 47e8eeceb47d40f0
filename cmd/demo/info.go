package main

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"qshm/cmd/demo/internal/units"
	"qshm/shm"
)

const infoHelp = `Say all there is to know about a segment: its file, who is attached, who holds the
lock, and how often it has changed.

Looking does not attach, changes nothing, and waits for nobody. --json prints one
object of the shape that "demo ls --help" describes.`

func newInfo() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:               "info KEY",
		Short:             "Say all there is to know about a segment",
		Long:              infoHelp,
		ValidArgsFunction: completeKey,
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
	return cmd
}

// describe says in lines what is known about a segment.
func describe(info shm.Info) string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "%-12s%s\n", name, fmt.Sprintf(format, args...))
	}
	size := units.Format(info.Size)
	if info.Size >= 1<<10 && !strings.HasSuffix(size, "bytes") {
		size = fmt.Sprintf("%d bytes, %s", info.Size, size)
	}
	line("key", "%s", showWholeKey(info.Key))
	line("status", "%s", statusMeaning(info.Status))
	line("size", "%s", size)
	line("version", "%d, the number of unlocks that may have written", info.Version)
	line("created", "%s", info.Created.Format(time.DateTime))
	line("owner", "%s, %s", owner(info.UID), info.Perm)
	line("file", "%s", info.Path)
	line("id", "%016x", info.ID)
	switch {
	case info.Owner != nil:
		line("lock", "held by process %d", info.Owner.PID)
	default:
		line("lock", "free")
	}
	line("attached", "%d of at most %d", info.Attached, info.MaxAttached)
	for _, a := range info.Attachments {
		mode := "reads and writes"
		if a.ReadOnly {
			mode = "read-only"
		}
		line("", "process %-7d %s  (attachment %016x)", a.PID, mode, a.ID)
	}
	return b.String()
}

func showWholeKey(key string) string {
	if len([]rune(key)) > maxShownKey {
		return fmt.Sprintf("%q", key)
	}
	return showKey(key)
}

func statusMeaning(s shm.Status) string {
	switch s {
	case shm.StatusLive:
		return "live"
	case shm.StatusDead:
		return "dead: all who were attached have died; it goes with the next call that meets it"
	case shm.StatusRemoved:
		return "removed: the key is free, but processes still use it"
	}
	return s.String()
}
