package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/user"
	"runtime"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"qshm/shm"
)

const lsHelp = `List the segments of a store, as ipcs -m does for System V memory.

STATUS is one of
  live      a process is attached
  dead      all who were attached have died; it goes with the next call that
            meets it, or with "demo rm --dead"
  removed   it was removed, but processes still use it
  unknown   it belongs to a user who does not let us look

LOCKED BY is the process that holds the segment's lock. Process numbers are
those of the process's own container, if it runs in one.

--json prints an array of objects, one for each segment:

  key          string; its first 256 bytes if it is longer
  key_base64   the key's bytes, only where the key is not UTF-8 text
  name, path   of the file in the store
  size         bytes
  uid, owner   of the file
  perm         its permissions, as "0600"
  created      time, RFC 3339
  status       as above
  attached     how many attachments processes that live have
  attachments  those: pid, read_only, id (16 hex digits; differs where pids
               do not)
  lock_owner   the one that holds the lock, or null
  version      how often it was unlocked by somebody who may have written
  max_attached how many attachments there can be
  id           16 hex digits; differs from those of others under the same key`

func newLs() *cobra.Command {
	var (
		asJSON, watch bool
		every         = time.Second
	)
	cmd := &cobra.Command{
		Use:               "ls",
		Short:             "List the segments there are",
		Long:              lsHelp,
		Args:              noArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if watch {
				if asJSON {
					return usageError{errors.New("--watch prints tables; for JSON run it again and again"), cmd.CommandPath()}
				}
				if err := checkEvery(cmd, every); err != nil {
					return err
				}
				return watchTable(cmd.Context(), cmd.OutOrStdout(), every)
			}
			infos, err := shm.List(storeOptions()...)
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), segmentsJSON(infos))
			}
			return printTable(cmd.OutOrStdout(), infos)
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "print the table again whenever it has changed, until Ctrl-C")
	cmd.Flags().DurationVar(&every, "every", every, "how often --watch looks, at least `TIME` 100ms")
	return cmd
}

// printTable prints one line for each segment, aligned.
func printTable(w io.Writer, infos []shm.Info) error {
	var b strings.Builder
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "KEY\tBYTES\tATTACHED\tSTATUS\tLOCKED BY\tOWNER\tPERMS\tNAME")
	for _, info := range infos {
		fmt.Fprintf(t, "%s\t%d\t%d\t%s\t%s\t%s\t%s\t%s\n", showKey(info.Key), info.Size, info.Attached, info.Status,
			lockedBy(info), owner(info.UID), info.Perm, info.Name)
	}
	t.Flush()
	_, err := io.WriteString(w, b.String())
	return err
}

const maxShownKey = 32

// showKey shows a key on one line, quoted where it could be taken for something
// else.
func showKey(key string) string {
	if len([]rune(key)) > maxShownKey {
		key = string([]rune(key)[:maxShownKey-1]) + "…"
	}
	if key == "" {
		return "-"
	}
	if quoted := strconv.Quote(key); quoted[1:len(quoted)-1] != key || strings.TrimSpace(key) != key || key == "-" {
		return quoted
	}
	return key
}

func lockedBy(info shm.Info) string {
	if info.Owner == nil {
		return "-"
	}
	return strconv.Itoa(info.Owner.PID)
}

// owner names a user.
func owner(uid uint32) string {
	if runtime.GOOS == "windows" {
		return "-" // owners have no numbers there
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// The shape of --json; lsHelp documents it.
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
		Attached    int              `json:"attached"`
		Attachments []attachmentJSON `json:"attachments"`
		LockOwner   *attachmentJSON  `json:"lock_owner"`
		Version     uint32           `json:"version"`
		MaxAttached int              `json:"max_attached"`
		ID          string           `json:"id"`
	}
	attachmentJSON struct {
		PID      int    `json:"pid"`
		ReadOnly bool   `json:"read_only"`
		ID       string `json:"id"`
	}
)

func toJSON(info shm.Info) segmentJSON {
	s := segmentJSON{
		Key: info.Key, Name: info.Name, Path: info.Path, Size: info.Size, UID: info.UID, Owner: owner(info.UID),
		Perm: fmt.Sprintf("%04o", info.Perm), Created: info.Created, Status: info.Status.String(),
		Attached: info.Attached, Attachments: []attachmentJSON{}, Version: info.Version,
		MaxAttached: info.MaxAttached, ID: fmt.Sprintf("%016x", info.ID),
	}
	if !utf8.ValidString(info.Key) {
		s.KeyBytes = []byte(info.Key)
	}
	for _, a := range info.Attachments {
		s.Attachments = append(s.Attachments, attachmentToJSON(a))
	}
	if info.Owner != nil {
		a := attachmentToJSON(*info.Owner)
		s.LockOwner = &a
	}
	return s
}

func attachmentToJSON(a shm.Attachment) attachmentJSON {
	return attachmentJSON{PID: a.PID, ReadOnly: a.ReadOnly, ID: fmt.Sprintf("%016x", a.ID)}
}

func segmentsJSON(infos []shm.Info) []segmentJSON {
	all := []segmentJSON{}
	for _, info := range infos {
		all = append(all, toJSON(info))
	}
	return all
}

func printJSON(w io.Writer, v any) error {
	text, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(w, "%s\n", text)
	return err
}
