//go:build linux

package main

import (
	"bytes"
	"embed"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// sources has the programs in other languages, and this one, to build it with another version of the library. They are
// embedded so that the program runs in any directory.
//
//go:embed src *.go
var sources embed.FS

// peer is what is measured: how to run it, and the operations that it has.
type peer struct {
	id, name, version string
	command           []string // the operation and its arguments follow
	env               []string
	ops               []string
}

// cmd returns the command that runs one operation.
func (p *peer) cmd(op string, args ...string) *exec.Cmd {
	c := exec.Command(p.command[0], slices.Concat(p.command[1:], []string{op}, args)...)
	c.Env = append(os.Environ(), p.env...)
	return c
}

func (p *peer) can(op string) bool { return slices.Contains(p.ops, op) }

// program is a source file in another language, which has to be built or interpreted.
type program struct {
	id, source string
	build      func(out, src, tmp string) ([]string, error) // the compiler's command line; nil: nothing to build
	run        func(out, src string) []string
}

func compiled(out, _ string) []string { return []string{out} }

var programs = []program{
	{"futex", "futex.c", func(out, src, _ string) ([]string, error) {
		return []string{"cc", "-O2", "-o", out, src, "-lrt"}, nil
	}, compiled},
	{"files", "files.c", func(out, src, _ string) ([]string, error) {
		return []string{"cc", "-O2", "-D_GNU_SOURCE", "-o", out, src, "-lrt"}, nil
	}, compiled},
	{"glibc", "glibc.c", func(out, src, _ string) ([]string, error) {
		return []string{"cc", "-O2", "-o", out, src, "-pthread", "-lrt"}, nil
	}, compiled},
	{"boost", "boost.cpp", func(out, src, tmp string) ([]string, error) {
		// Boost keeps the files of its robust mutex in a directory of its own and leaves them there.
		own := fmt.Sprintf("-DBOOST_INTERPROCESS_SHARED_DIR_PATH=%q", tmp)
		return []string{"c++", "-O2", own, "-o", out, src, "-pthread", "-lrt"}, nil
	}, compiled},
	{"qt", "qt.cpp", func(out, src, _ string) ([]string, error) {
		flags, err := exec.Command("pkg-config", "--cflags", "--libs", "Qt6Core").Output()
		if err != nil {
			return nil, fmt.Errorf("pkg-config knows no Qt6Core: %w", err)
		}
		command := []string{"c++", "-std=c++17", "-O2", "-fPIC", "-o", out, src, "-lrt"}
		return append(command, strings.Fields(string(flags))...), nil
	}, compiled},
	{"python", "python_shm.py", nil, func(_, src string) []string { return []string{"python3", src} }},
}

// findPeers builds the programs that can be built here. For each other one, skipped has the reason.
func findPeers(tmp, memory string) (found []*peer, skipped []string, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	store, session := filepath.Join(memory, "store"), filepath.Join(memory, "session")
	for _, dir := range []string{store, session} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			return nil, nil, err
		}
	}
	// Qt has a file for each key: in TMPDIR, and from 6.6 on in the directory of the session, which is in memory. Without
	// that directory Qt prints a warning for each key, which would be measured too.
	env := []string{"TMPDIR=" + tmp, "XDG_RUNTIME_DIR=" + session}
	for _, g := range goPeers {
		p := &peer{id: g.variant, name: g.name, version: g.version, command: []string{self, g.variant}}
		p.env = []string{workerEnv + "=1", "QSHM_DIR=" + store}
		for op := range g.ops {
			p.ops = append(p.ops, op)
		}
		found = append(found, p)
	}
	src, err := fs.Sub(sources, "src")
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(tmp, "src")
	if err := os.CopyFS(dir, src); err != nil {
		return nil, nil, err
	}
	// Compilers are slow: they run in parallel, before anything is measured.
	type result struct {
		peers   []*peer
		skipped []string
	}
	all := make([]result, len(programs))
	var building sync.WaitGroup
	for i, g := range programs {
		building.Go(func() {
			peers, left, err := g.make(tmp, dir, env)
			if err != nil {
				left = append(left, fmt.Sprintf("%s: %v", g.id, err))
			}
			all[i] = result{peers, left}
		})
	}
	building.Wait()
	for _, m := range all {
		found, skipped = append(found, m.peers...), append(skipped, m.skipped...)
	}
	return found, skipped, nil
}

// make builds the program and asks it what it is: one peer for each variant.
func (g program) make(tmp, dir string, env []string) (found []*peer, skipped []string, err error) {
	src, out := filepath.Join(dir, g.source), filepath.Join(tmp, g.id)
	if g.build != nil {
		command, err := g.build(out, src, tmp)
		if err != nil {
			return nil, nil, err
		}
		if said, err := exec.Command(command[0], command[1:]...).CombinedOutput(); err != nil {
			return nil, nil, fmt.Errorf("%s: %w: %s", command[0], err, firstError(said))
		}
	}
	run := g.run(out, src)
	said, err := exec.Command(run[0], append(run[1:], "info")...).Output()
	if err != nil {
		return nil, nil, err
	}
	for line := range bytes.Lines(said) {
		var info struct {
			Variant, Name, Version, Skip string
			Ops                          []string
		}
		if err := json.Unmarshal(line, &info); err != nil {
			return nil, nil, err
		}
		if info.Skip != "" {
			skipped = append(skipped, info.Name+": "+info.Skip)
			continue
		}
		found = append(found, &peer{
			id: info.Variant, name: info.Name, version: info.Version, ops: info.Ops,
			command: append(slices.Clone(run), info.Variant),
			env:     env,
		})
	}
	return found, skipped, nil
}

// firstError is the line of a compiler's output that says what is missing.
func firstError(said []byte) string {
	for line := range strings.Lines(string(said)) {
		if strings.Contains(line, "error") {
			return strings.TrimSpace(line)
		}
	}
	return strings.TrimSpace(string(said))
}
