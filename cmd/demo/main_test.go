package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// The scenarios are the scripts in testdata/script. Each has a store of its own.
// Besides testscript's own commands they use these, for processes that run at the same
// time:
//
//	code N demo ARG...      runs demo to its end, which must be with exit code N
//	start NAME demo ARG...  starts demo, with its input open
//	type NAME TEXT          gives it a line
//	send NAME FILE          gives it a file
//	eof NAME                ends its input
//	see NAME TEXT           waits until it has printed TEXT, on either output
//	never NAME TEXT         fails if it has printed TEXT
//	kill9 NAME              kills it
//	signal NAME SIGNAL      sends it INT or TERM
//	ends NAME N             waits for its end, which must be with exit code N; -1: killed
//	empty DIR               fails if DIR has files
//	json FILE               fails unless FILE, or stdout, is JSON
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			env.Setenv("QSHM_DIR", env.WorkDir+"/store")
			all := &processes{named: map[string]*child{}}
			env.Values["processes"] = all
			env.Defer(all.killAll)
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"code": cmdCode, "start": cmdStart, "type": cmdType, "send": cmdSend, "eof": cmdEOF, "see": cmdSee, "never": cmdNever,
			"kill9": cmdKill, "signal": cmdSignal, "ends": cmdEnds, "empty": cmdEmpty, "json": cmdJSON,
		},
	})
}

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"demo": main})
}

// patience is how long a test waits before it gives up: only failures take so long.
const patience = 60 * time.Second

type processes struct {
	named map[string]*child
}

// A child runs at the same time as the script.
type child struct {
	cmd   *exec.Cmd
	in    io.WriteCloser
	sent  sync.WaitGroup // of what send gives it
	mu    sync.Mutex
	text  bytes.Buffer // what it has printed
	grown chan struct{}
	ended chan error
}

func (p *child) Write(text []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case p.grown <- struct{}{}:
	default:
	}
	return p.text.Write(text)
}

func (p *child) printed() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.text.String()
}

func (all *processes) killAll() {
	for _, p := range all.named {
		p.cmd.Process.Kill()
		<-p.ended
	}
}

// named returns the process of that name.
func named(ts *testscript.TestScript, args []string) *child {
	if len(args) == 0 {
		ts.Fatalf("name a process")
	}
	p := ts.Value("processes").(*processes).named[args[0]]
	if p == nil {
		ts.Fatalf("no process %q was started", args[0])
	}
	return p
}

func cmdStart(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: start NAME PROGRAM ARG...")
	}
	path, err := exec.LookPath(args[1])
	for _, dir := range strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator)) {
		if found, in := exec.LookPath(dir + "/" + args[1]); in == nil {
			path, err = found, nil
			break
		}
	}
	ts.Check(err)
	p := &child{cmd: exec.Command(path, args[2:]...), grown: make(chan struct{}, 1), ended: make(chan error, 1)}
	p.cmd.Dir = ts.MkAbs(".")
	p.cmd.Env = os.Environ()
	for _, name := range []string{"QSHM_DIR", "PATH", "HOME", "TMPDIR", "WORK", "NO_COLOR"} {
		p.cmd.Env = append(p.cmd.Env, name+"="+ts.Getenv(name))
	}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.WaitDelay = 5 * time.Second // if a process that it has started holds its output
	p.in, err = p.cmd.StdinPipe()
	ts.Check(err)
	ts.Check(p.cmd.Start())
	go func() {
		p.ended <- p.cmd.Wait()
		close(p.ended)
	}()
	ts.Value("processes").(*processes).named[args[0]] = p
}

func cmdType(ts *testscript.TestScript, neg bool, args []string) {
	_, err := io.WriteString(named(ts, args).in, strings.Join(args[1:], " ")+"\n")
	ts.Check(err)
}

func cmdSend(ts *testscript.TestScript, neg bool, args []string) {
	p, text := named(ts, args), ts.ReadFile(args[1])
	p.sent.Add(1)
	go func() { // it may read slowly
		defer p.sent.Done()
		io.WriteString(p.in, text)
	}()
}

func cmdEOF(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args)
	go func() {
		p.sent.Wait()
		p.in.Close()
	}()
}

func cmdSee(ts *testscript.TestScript, neg bool, args []string) {
	p, text := named(ts, args), strings.Join(args[1:], " ")
	late := time.After(patience)
	for !strings.Contains(p.printed(), text) {
		select {
		case <-p.grown:
		case <-time.After(20 * time.Millisecond):
		case <-late:
			ts.Fatalf("%s has not printed %q, but:\n%s", args[0], text, p.printed())
		}
	}
}

func cmdNever(ts *testscript.TestScript, neg bool, args []string) {
	p, text := named(ts, args), strings.Join(args[1:], " ")
	if strings.Contains(p.printed(), text) {
		ts.Fatalf("%s has printed %q:\n%s", args[0], text, p.printed())
	}
}

func cmdKill(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(named(ts, args).cmd.Process.Kill())
}

func cmdEnds(ts *testscript.TestScript, neg bool, args []string) {
	p := named(ts, args)
	select {
	case err := <-p.ended:
		checkCode(ts, err, args[1], p.printed())
		ts.Logf("[%s]\n%s", args[0], p.printed())
	case <-time.After(patience):
		ts.Fatalf("%s does not end; it has printed:\n%s", args[0], p.printed())
	}
}

func cmdCode(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: code N PROGRAM ARG...")
	}
	checkCode(ts, ts.Exec(args[1], args[2:]...), args[0], "")
}

func checkCode(ts *testscript.TestScript, err error, want, printed string) {
	code := 0
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		code = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if strconv.Itoa(code) != want {
		ts.Fatalf("exit code %d, want %s\n%s", code, want, printed)
	}
}

func cmdEmpty(ts *testscript.TestScript, neg bool, args []string) {
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	if (len(entries) > 0) != neg {
		ts.Fatalf("%s holds %v", args[0], entries)
	}
}

func cmdJSON(ts *testscript.TestScript, neg bool, args []string) {
	var v any
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &v))
}
