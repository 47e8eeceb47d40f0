// Package segments shows segments to people: their keys, owners and kinds, and tables
// with one line for each.
package segments

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/user"
	"runtime"
	"strconv"
	"strings"

	"qshm/cmd/demo/internal/layout"
	"qshm/cmd/demo/internal/units"
	"qshm/keymap"
	"qshm/shm"
)

// ShowKey shows a key in at most width columns, and in quotes if it could be mistaken
// for something else.
func ShowKey(key string, width int) string {
	if key == "" {
		return "-" // unknown: no segment has an empty key
	}
	if quoted := strconv.Quote(key); quoted[1:len(quoted)-1] != key || strings.TrimSpace(key) != key || key == "-" {
		key = quoted
	}
	return layout.Shorten(key, width)
}

// HasKey reports whether info has the key of the segment: it has the first 256 bytes of
// a longer one, and none if the creator died before it wrote the key.
func HasKey(info shm.Info) bool { return info.Key != "" && keymap.Name(info.Key) == info.Name }

// Owner names a user.
func Owner(uid uint32) string {
	if runtime.GOOS == "windows" {
		return "-" // users have no numbers there
	}
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// Perm returns the permissions of a segment's file, as chmod(1) takes them.
func Perm(info shm.Info) string { return "0" + strconv.FormatUint(uint64(info.Perm), 8) }

// Kind says what is in a segment: "stream", or "-" for anything else. It reads the
// file, and does not attach.
func Kind(info shm.Info) string {
	const none = "-"
	f, err := os.Open(info.Path)
	if err != nil {
		return none
	}
	defer f.Close()
	var size [4]byte // of the segment's header, see shm/FORMAT.md
	if _, err := f.ReadAt(size[:], 16); err != nil {
		return none
	}
	var magic [8]byte // see shm/stream/FORMAT.md
	if _, err := f.ReadAt(magic[:], int64(binary.NativeEndian.Uint32(size[:]))); err != nil || string(magic[:]) != "qshmstrm" {
		return none
	}
	return "stream"
}

// InUse says what uses a segment.
func InUse(info shm.Info) string {
	text := units.Count(info.Attached, "attachment")
	if info.Owner != nil {
		text += fmt.Sprintf(", locked by process %d", info.Owner.PID)
	}
	return text
}

// Remove removes the segment of key, which info describes, and says what it did.
func Remove(key string, info shm.Info, opts ...shm.Option) (done string, err error) {
	if err := shm.Remove(key, opts...); err != nil {
		return "", err
	}
	done = "removed " + ShowKey(key, MaxShownKey)
	if info.Attached > 0 {
		done += "; the memory stays for " + units.Count(info.Attached, "attachment")
	}
	return done, nil
}
