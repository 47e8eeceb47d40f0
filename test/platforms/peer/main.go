// Peer is one process of a scenario. It takes the steps that its arguments name, one after the other, in one store and
// on one key, and ends with exit code 1 at the first step that fails.
//
//	peer KEY STEP…
//
// The scripts in the parent directory run peers in containers and namespaces, where they share a store and nothing
// else. So peers wait for each other by steps that look at the shared memory, such as until and attached.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"qshm/shm"
)

// patience is how long a step waits for the other peers.
const patience = 20 * time.Second

// The data are a counter, and then a text that ends at its first zero byte. The last bytes are for another text.
const (
	textAt   = 8
	lastSize = 8
)

type peer struct {
	key  string
	opts []shm.Option
	seg  *shm.Segment
}

type step struct {
	name, help string
	run        func(p *peer, arg string) error
}

var steps = []step{
	{"key", "KEY: the key of the following steps", func(p *peer, arg string) error { p.key = arg; return nil }},
	{"perm", "MODE: the permissions of segments that the following steps create", (*peer).perm},
	{"create", "SIZE", (*peer).create},
	{"nospace", "SIZE: create fails with ErrNoSpace, and leaves nothing", (*peer).noSpace},
	{"attach", "", (*peer).attach},
	{"open", "SIZE: create or attach", (*peer).open},
	{"grow", "SIZE", (*peer).grow},
	{"nogrow", "SIZE: grow fails with ErrNoSpace, and changes nothing", (*peer).noGrow},
	{"attached", "N: wait until there are N attachments", (*peer).attached},
	{"lock", "DURATION: take the lock within that time", (*peer).lock},
	{"nolock", "DURATION: the lock stays taken for that time", (*peer).noLock},
	{"owned", "wait until the lock has an owner", (*peer).owned},
	{"busy", "TryLock fails", (*peer).busy},
	{"abandoned", "true or false: what Abandoned reports", (*peer).abandoned},
	{"unlock", "", (*peer).unlock},
	{"write", "TEXT", (*peer).write},
	{"until", "TEXT: wait until the data contain it", (*peer).until},
	{"last", "TEXT: write it to the last 8 bytes", (*peer).last},
	{"last-is", "TEXT: wait until the last 8 bytes are that", (*peer).lastIs},
	{"add", "N: increment the counter N times, with the lock held", (*peer).add},
	{"sum", "N: wait until the counter is N", (*peer).sum},
	{"openatonce", "ROUNDSxPEERS: in each round, open a new key at the same time as the other peers, and share it with all", (*peer).openAtOnce},
	{"hold", "do nothing until killed", (*peer).hold},
	{"detach", "", (*peer).detach},
	{"missing", "the key has no segment", (*peer).missing},
	{"empty", "the store contains no file after a Sweep", (*peer).empty},
}

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) (exitCode int) {
	if len(args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: peer KEY STEP[=ARGUMENT]…")
		for _, s := range steps {
			fmt.Fprintf(os.Stderr, "  %-10s %s\n", s.name, s.help)
		}
		return 2
	}
	p := &peer{key: args[0]}
	for _, a := range args[1:] {
		name, arg, _ := strings.Cut(a, "=")
		i := slices.IndexFunc(steps, func(s step) bool { return s.name == name })
		if i < 0 {
			fmt.Fprintf(os.Stderr, "peer: no step %q\n", name)
			return 2
		}
		start := time.Now()
		if err := steps[i].run(p, arg); err != nil {
			fmt.Fprintf(os.Stderr, "peer %d: %s: %v\n", os.Getpid(), a, err)
			return 1
		}
		fmt.Printf("peer %d: %s: ok (%v)\n", os.Getpid(), a, time.Since(start).Round(time.Microsecond))
	}
	return 0
}

func (p *peer) perm(arg string) error {
	mode, err := strconv.ParseUint(arg, 8, 9)
	p.opts = append(p.opts, shm.Perm(fs.FileMode(mode)))
	return err
}

func (p *peer) create(arg string) error {
	size, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	p.seg, err = shm.Create(p.key, size, p.opts...)
	return err
}

func (p *peer) noSpace(arg string) error {
	err := p.create(arg)
	if !errors.Is(err, shm.ErrNoSpace) {
		return fmt.Errorf("create: %v, want %v", err, shm.ErrNoSpace)
	}
	fmt.Println(err)
	return p.missing("")
}

func (p *peer) grow(arg string) error {
	size, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	return p.seg.Grow(size)
}

func (p *peer) noGrow(arg string) error {
	before := p.seg.Size()
	err := p.grow(arg)
	if !errors.Is(err, shm.ErrNoSpace) || p.seg.Size() != before {
		return fmt.Errorf("grow: %v, want %v; %d bytes, then %d", err, shm.ErrNoSpace, before, p.seg.Size())
	}
	fmt.Println(err)
	return nil
}

func (p *peer) attach(string) (err error) {
	p.seg, err = shm.Attach(p.key, p.opts...)
	return err
}

func (p *peer) open(arg string) error {
	size, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	p.seg, _, err = shm.Open(p.key, size, p.opts...)
	return err
}

func (p *peer) attached(arg string) error {
	want, err := strconv.Atoi(arg)
	if err != nil {
		return err
	}
	return p.info(func(i shm.Info) bool { return i.Attached == want })
}

func (p *peer) owned(string) error {
	return p.info(func(i shm.Info) bool { return i.Owner != nil })
}

// info waits until ok is true of what Stat reports.
func (p *peer) info(ok func(shm.Info) bool) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		info, err := shm.Stat(p.key, p.opts...)
		switch {
		case err == nil && ok(info):
			return nil
		case err != nil && !errors.Is(err, shm.ErrNotExist):
			return err
		case time.Now().After(deadline):
			return fmt.Errorf("after %v, Stat still reports %+v, %v", patience, info, err)
		}
	}
}

func (p *peer) lock(arg string) error {
	limit, err := time.ParseDuration(arg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return p.seg.LockContext(ctx)
}

func (p *peer) noLock(arg string) error {
	if err := p.lock(arg); !errors.Is(err, context.DeadlineExceeded) {
		return fmt.Errorf("lock: %v, want %v", err, context.DeadlineExceeded)
	}
	return nil
}

func (p *peer) busy(string) error {
	for range 3 {
		got, err := p.seg.TryLock()
		if err != nil {
			return err
		}
		if got {
			return errors.New("TryLock took the lock, want it held by another peer")
		}
	}
	return nil
}

func (p *peer) abandoned(arg string) error {
	if got := strconv.FormatBool(p.seg.Abandoned()); got != arg {
		return fmt.Errorf("abandoned is %s, want %s", got, arg)
	}
	return nil
}

func (p *peer) unlock(string) error { return p.seg.Unlock() }

func (p *peer) write(arg string) error {
	return p.seg.Update(func(data []byte) error {
		if len(arg) >= len(data)-textAt {
			return errors.New("too long")
		}
		copy(data[textAt:], arg+"\x00")
		return nil
	})
}

func (p *peer) until(arg string) error {
	return p.look(func(data []byte) (string, bool) {
		text, _, _ := bytes.Cut(data[textAt:], []byte{0})
		return string(text), string(text) == arg
	})
}

func (p *peer) last(arg string) error {
	return p.seg.Update(func(data []byte) error {
		if len(arg) > lastSize {
			return errors.New("too long")
		}
		copy(data[len(data)-lastSize:], arg+strings.Repeat("\x00", lastSize-len(arg)))
		return nil
	})
}

func (p *peer) lastIs(arg string) error {
	return p.look(func(data []byte) (string, bool) {
		text := strings.TrimRight(string(data[len(data)-lastSize:]), "\x00")
		return text, text == arg
	})
}

func (p *peer) add(arg string) error {
	n, err := strconv.Atoi(arg)
	for range n {
		err = errors.Join(err, p.seg.Update(func(data []byte) error {
			binary.NativeEndian.PutUint64(data, binary.NativeEndian.Uint64(data)+1)
			return nil
		}))
	}
	return err
}

func (p *peer) sum(arg string) error {
	return p.look(func(data []byte) (string, bool) {
		got := strconv.FormatUint(binary.NativeEndian.Uint64(data), 10)
		return got, got == arg
	})
}

// look waits for changes of the data until done reports true.
func (p *peer) look(done func(data []byte) (seen string, ok bool)) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for {
		version := p.seg.Version() // before the look: a change in between is not missed
		var seen string
		var ok bool
		err := p.seg.View(func(data []byte) error {
			seen, ok = done(data)
			return nil
		})
		if ok || err != nil {
			return err
		}
		if _, err := p.seg.Wait(ctx, version); err != nil {
			return fmt.Errorf("the data contain %q: %w", seen, err)
		}
	}
}

func (p *peer) openAtOnce(arg string) error {
	var rounds, peers int
	if _, err := fmt.Sscanf(arg, "%dx%d", &rounds, &peers); err != nil {
		return err
	}
	base := p.key
	for round := range rounds {
		p.key = fmt.Sprint(base, "-", round)
		err := p.open("4096")
		if err == nil {
			err = errors.Join(p.add("1"), p.sum(strconv.Itoa(peers)), p.detach(""))
		}
		if err != nil {
			all, _ := shm.List()
			return fmt.Errorf("round %d: %w; the store contains %+v", round, err, all)
		}
	}
	p.key = base
	return nil
}

func (p *peer) hold(string) error {
	fmt.Printf("peer %d: hold\n", os.Getpid())
	for {
		time.Sleep(time.Hour)
	}
}

func (p *peer) detach(string) error { return p.seg.Detach() }

func (p *peer) missing(string) error {
	info, err := shm.Stat(p.key, p.opts...)
	if !errors.Is(err, shm.ErrNotExist) {
		return fmt.Errorf("stat: %+v, %v, want %v", info, err, shm.ErrNotExist)
	}
	return nil
}

func (p *peer) empty(string) error {
	if _, err := shm.Sweep(p.opts...); err != nil {
		return err
	}
	store := os.Getenv("QSHM_DIR")
	var left []string
	err := filepath.WalkDir(store, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			left = append(left, path)
		}
		return err
	})
	if len(left) > 0 {
		return fmt.Errorf("the store contains %q, want nothing", left)
	}
	return err
}
