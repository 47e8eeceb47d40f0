package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A transcript is a block of a text that is marked console. A line that begins with "$ " is
// a command; the lines after it are what the shell has printed by then, also for commands in
// the background. What differs between runs is not compared: numbers of three digits and
// more, times, widths of columns, the store and the user.
func TestTranscriptsInTextsAreWhatAShellPrints(t *testing.T) {
	needNative(t) // the programs of the texts run on this machine only
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	bin := t.TempDir()
	goTool(t, "..", "build", "-o", filepath.Join(bin, "demo"), "./cmd/demo")
	goTool(t, embedder(t, programs(t)), "build", "-o", bin+"/", "./...")
	picture, err := os.ReadFile("../cmd/demo/pictures/top.png")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(bin, "top.png"), picture, 0o600))

	blocks := regexp.MustCompile("(?ms)^```console\n(.*?)^```")
	for name, text := range texts(t) {
		for i, m := range blocks.FindAllStringSubmatch(text, -1) {
			t.Run(fmt.Sprintf("%s/%d", name, i+1), func(t *testing.T) { transcript(t, shell, bin, m[1]) })
		}
	}
}

// transcript runs a transcript in directory bin, and compares what is printed.
func transcript(t *testing.T, shell, bin, block string) {
	dir := newStore(t).dir
	cmd := exec.Command(shell, "--norc")
	cmd.Dir = bin
	cmd.Env = append(os.Environ(), "QSHM_DIR="+dir, "PATH="+bin+":"+os.Getenv("PATH"), "NO_COLOR=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	in, err := cmd.StdinPipe()
	must(t, err)
	var out lockedBuffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second // if a process in the background holds the pipe
	must(t, cmd.Start())
	defer func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // also what runs in the background
		cmd.Wait()
	}()

	owner := "root"
	if u, err := user.Current(); err == nil {
		owner = u.Username
	}
	printed := func() string { return normalised(out.String(), dir, owner) }
	want := ""
	for _, step := range strings.Split("\n"+block, "\n$ ")[1:] {
		command, result, _ := strings.Cut(step, "\n")
		if result = strings.TrimRight(result, "\n"); result != "" {
			want += result + "\n"
		}
		_, err := io.WriteString(in, "{ "+command+"\n} </dev/null\n")
		must(t, err)
		expected := normalised(want, dir, "root")
		for end := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
			got := printed()
			if got == expected {
				break
			}
			lines := got[:strings.LastIndex(got, "\n")+1] // the last line may be incomplete
			if time.Now().After(end) || !strings.HasPrefix(expected, lines) {
				t.Fatalf("after %q, the shell has printed\n%s\nwant, as in the text,\n%s", command, got, expected)
			}
		}
	}
}

// normalised replaces what differs between runs.
func normalised(text, dir, owner string) string {
	for _, r := range []struct{ pattern, by string }{
		{regexp.QuoteMeta(dir), "/dev/shm/qshm-0"},
		{`(?m)^created +.*$`, "created TIME"},
		{`\b[0-9a-f]{16}\b`, "ID"},
		{`\b` + regexp.QuoteMeta(owner) + `\b`, "root"},
		{`[0-9]{3,}`, "N"},
		{`[ \t]+`, " "},
	} {
		text = regexp.MustCompile(r.pattern).ReplaceAllString(text, r.by)
	}
	return text
}
