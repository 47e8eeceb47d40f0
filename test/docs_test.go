package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the README shows works: its program compiles, and an embedder gets the modules
// that it names.

// goTool runs the go command in dir. Without a go command, it skips the test.
func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	tool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("the go command is not on the path")
	}
	cmd := exec.Command(tool, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOOS=", "GOARCH=")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// embedder makes a module that requires this one in the way that the README shows.
func embedder(t *testing.T, source string) string {
	t.Helper()
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(source), 0o600); err != nil {
		t.Fatal(err)
	}
	goTool(t, dir, "mod", "init", "example")
	goTool(t, dir, "mod", "edit", "-require=qshm@v0.0.0", "-replace=qshm="+root)
	goTool(t, dir, "mod", "tidy")
	return dir
}

func TestReadmeProgramCompiles(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	program := regexp.MustCompile("(?s)<!-- test: first program -->\n```go\n(.*?)```").FindSubmatch(readme)
	if program == nil {
		t.Fatal("the README has no first program")
	}
	goTool(t, embedder(t, string(program[1])), "build", "-o", os.DevNull, ".")
}

// The README shows parts of the compose file that platforms/docker.sh runs.
func TestReadmeShowsTheComposeFile(t *testing.T) {
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile("platforms/docker/compose.yaml")
	if err != nil {
		t.Fatal(err)
	}
	shown := regexp.MustCompile("(?s)<!-- test: compose -->\n```yaml\n(.*?)```").FindAllSubmatch(readme, -1)
	if len(shown) != 2 {
		t.Errorf("the README shows %d parts of the compose file, want 2", len(shown))
	}
	for _, piece := range shown {
		if !strings.Contains(string(file), string(piece[1])) {
			t.Errorf("not in the compose file:\n%s", piece[1])
		}
	}
}

func TestEmbedderGetsThreeModules(t *testing.T) {
	dir := embedder(t, `package main

import (
	_ "qshm/shm"
	_ "qshm/shm/single"
)

func main() {}
`)
	goTool(t, dir, "build", "-o", os.DevNull, ".")
	var got []string
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require\s+)?([\w.]+[/\w.-]*) v\d`).FindAllSubmatch(gomod, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(got)
	want := []string{"github.com/edsrzf/mmap-go", "github.com/gofrs/flock", "golang.org/x/sys", "qshm"}
	if !slices.Equal(got, want) {
		t.Errorf("the embedder's go.mod requires %v, want %v:\n%s", got, want, gomod)
	}
}
