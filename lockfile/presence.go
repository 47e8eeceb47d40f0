package lockfile

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// A Presence tells others that this process is alive: a file of its own, named
// by a random token, locked from Announce to Withdraw or death.
type Presence struct {
	lock  *flock.Flock
	token uint64
}

const (
	presencePrefix = ".live."
	presencePerm   = 0o644 // who shares the store must be able to open it, or it could not ask
)

func presencePath(dir string, token uint64) string {
	return filepath.Join(dir, fmt.Sprintf("%s%016x", presencePrefix, token))
}

// PresenceToken returns the token that a file's name stands for.
func PresenceToken(name string) (token uint64, ok bool) {
	digits, ok := strings.CutPrefix(name, presencePrefix)
	if !ok || len(digits) != 16 {
		return 0, false
	}
	token, err := strconv.ParseUint(digits, 16, 64)
	return token, err == nil && token != 0
}

// Announce makes the presence of this process in dir.
//
// A process that dies before the lock is its own leaves a file that nobody
// refers to, which [Bury] removes.
func Announce(dir string) (*Presence, error) {
	for {
		token, err := randomToken()
		if err != nil {
			return nil, err
		}
		path := presencePath(dir, token)
		lock := flock.New(path, flock.SetFlag(os.O_RDWR|os.O_CREATE|os.O_EXCL|asItIs), flock.SetPermissions(presencePerm))
		fault("announce")
		ok, err := lock.TryLock()
		fault("announced")
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			os.Remove(path)
			return nil, pathError("announce", path, err)
		}
		if !ok {
			continue // somebody sweeping takes it for one of the dead, and removes it
		}
		info, err := lock.Stat()
		if err == nil && linked(info) {
			if !readable(info) { // the umask may have closed it
				// On some file systems that is how it stays. Who cannot ask then
				// takes this process for alive.
				os.Chmod(path, presencePerm)
			}
			return &Presence{lock, token}, nil
		}
		removeLocked(lock)
		if err != nil {
			return nil, pathError("announce", path, err)
		}
	}
}

func randomToken() (uint64, error) {
	for {
		var b [8]byte
		if _, err := rand.Read(b[:]); err != nil {
			return 0, err
		}
		if token := binary.NativeEndian.Uint64(b[:]); token != 0 {
			return token, nil
		}
	}
}

// Token is the name by which others ask for this process. It is never zero.
func (p *Presence) Token() uint64 { return p.token }

// Linked reports whether the file is still there. If not, somebody has removed
// it, and others take this process for dead.
func (p *Presence) Linked() bool {
	_, err := os.Lstat(p.lock.Path())
	return err == nil
}

// Withdraw ends the presence and removes its file.
func (p *Presence) Withdraw() error { return removeLocked(p.lock) }

// Alive reports whether the process that announced token in dir still runs; a
// stopped one does. A presence that this process may not open counts as alive:
// what cannot be asked must not be robbed.
func Alive(dir string, token uint64) bool {
	lock, dead := probe(dir, token)
	if lock != nil {
		lock.Unlock()
	}
	return !dead
}

// Bury removes the file of a dead process, if it is dead. It reports whether the
// process is.
func Bury(dir string, token uint64) bool {
	lock, dead := probe(dir, token)
	if lock != nil {
		// Under the lock: a process that has just made the file, and not locked
		// it yet, must not get the lock between our look and the removal.
		if info, err := lock.Stat(); err == nil && info.Mode().IsRegular() {
			removeLocked(lock)
		} else {
			lock.Unlock() // no process has made it
		}
	}
	return dead
}

// probe asks by a shared lock, so that two who ask at once never take each other
// for the owner. It returns the lock if that could be had. Where somebody who is
// just removing the file keeps others out, on Windows, it waits for the outcome.
func probe(dir string, token uint64) (lock *flock.Flock, dead bool) {
	lock = flock.New(presencePath(dir, token), flock.SetFlag(os.O_RDONLY|asItIs))
	for start := time.Now(); ; time.Sleep(probePause) {
		ok, err := lock.TryRLock()
		fault("probed")
		switch {
		case ok:
			return lock, true
		case !busy(err) || time.Since(start) > probePatience:
			return nil, errors.Is(err, fs.ErrNotExist)
		}
	}
}

const (
	probePatience = 50 * time.Millisecond
	probePause    = time.Millisecond
)
