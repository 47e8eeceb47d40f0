package test

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// What the texts say is true: links resolve, programs compile, the tests that they name
// exist, exit codes are those of the demo, and a program that imports the library gets the
// modules that the README names. docs_linux_test.go runs the commands of the texts.

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

// embedder makes a module that requires this one as the README says. It has the programs,
// each in a directory of its name.
func embedder(t *testing.T, programs map[string]string) string {
	t.Helper()
	root, err := filepath.Abs("..")
	must(t, err)
	dir := t.TempDir()
	for name, source := range programs {
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		must(t, os.WriteFile(filepath.Join(dir, name, "main.go"), []byte(source), 0o600))
	}
	goTool(t, dir, "mod", "init", "example")
	goTool(t, dir, "mod", "edit", "-require=qshm@v0.0.0", "-replace=qshm="+root)
	goTool(t, dir, "mod", "tidy")
	return dir
}

// texts returns the Markdown files of the project, by their paths from its root.
func texts(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && d.Name() == ".git" {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			all[filepath.ToSlash(strings.TrimPrefix(path, ".."+string(filepath.Separator)))] = string(text)
		}
		return nil
	}))
	return all
}

var fences = regexp.MustCompile("(?ms)^```.*?^```")

// anchors returns the anchors that GitHub makes of the headings of a text.
func anchors(text string) (all []string) {
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(fences.ReplaceAllString(text, ""), -1) {
		kept := regexp.MustCompile(`[^\pL\pN _-]`).ReplaceAllString(strings.ToLower(m[1]), "")
		all = append(all, strings.ReplaceAll(kept, " ", "-"))
	}
	return all
}

func TestLinksResolve(t *testing.T) {
	all := texts(t)
	for name, text := range all {
		for _, m := range regexp.MustCompile(`\]\(([^)\s]+)\)`).FindAllStringSubmatch(fences.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
				if _, err := os.Stat(filepath.Join("..", target)); err != nil {
					t.Errorf("%s: there is no file for the link %s", name, m[1])
					continue
				}
			}
			if anchor != "" && !slices.Contains(anchors(all[target]), anchor) {
				t.Errorf("%s: there is no heading of %s for the link %s", name, target, m[1])
			}
		}
	}
}

func TestReadmeIsShort(t *testing.T) {
	if n := strings.Count(texts(t)["README.md"], "\n"); n > 150 {
		t.Errorf("the README has %d lines, want at most 150", n)
	}
}

// programs returns the Go programs that the texts show, by their names.
func programs(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for name, text := range texts(t) {
		named := regexp.MustCompile("(?s)<!-- program: (\\w+) -->\n```go\n(.*?)```").FindAllStringSubmatch(text, -1)
		for _, m := range named {
			if all[m[1]] != "" {
				t.Errorf("%s: there are two programs %s", name, m[1])
			}
			all[m[1]] = m[2]
		}
		if n := strings.Count(text, "```go\n"); n != len(named) {
			t.Errorf("%s: %d of %d Go programs have a name, want all: <!-- program: NAME --> in the line before", name, len(named), n)
		}
	}
	if len(all) == 0 {
		t.Error("the texts contain no program")
	}
	return all
}

func TestProgramsInTextsCompile(t *testing.T) {
	goTool(t, embedder(t, programs(t)), "vet", "./...")
}

func TestTestsThatTextsNameExist(t *testing.T) {
	var sources strings.Builder
	must(t, filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, "_test.go") {
			var source []byte
			source, err = os.ReadFile(path)
			sources.Write(source)
		}
		return err
	}))
	lines := map[string]bool{}
	for _, c := range conformance {
		lines[c.name] = true
	}
	for name, text := range texts(t) {
		for _, m := range regexp.MustCompile(`\b(Test[A-Z]\w+)(?:/([a-z-]+))?`).FindAllStringSubmatch(text, -1) {
			if !strings.Contains(sources.String(), "func "+m[1]+"(") || m[1] == "TestConformance" && m[2] != "" && !lines[m[2]] {
				t.Errorf("%s names the test %s, which does not exist", name, m[0])
			}
		}
	}
}

// docs/containers.md shows parts of the compose file that platforms/docker.sh runs.
func TestTextsShowTheComposeFile(t *testing.T) {
	file, err := os.ReadFile("platforms/docker/compose.yaml")
	must(t, err)
	shown := regexp.MustCompile("(?s)<!-- test: compose -->\n```yaml\n(.*?)```").FindAllStringSubmatch(texts(t)["docs/containers.md"], -1)
	if len(shown) != 2 {
		t.Errorf("docs/containers.md has %d parts of the compose file, want 2", len(shown))
	}
	for _, piece := range shown {
		if !strings.Contains(string(file), piece[1]) {
			t.Errorf("docs/containers.md has this, and the compose file does not:\n%s", piece[1])
		}
	}
}

// The table of exit codes in docs/demo.md is that of the demo's help, and the commands
// that the texts name are commands.
func TestTextsAgreeWithTheDemosHelp(t *testing.T) {
	help := goTool(t, "..", "run", "./cmd/demo", "--help")
	_, codes, ok := strings.Cut(help, "Exit codes:\n")
	if !ok {
		t.Fatal("the help of the demo has no exit codes")
	}
	codes, _, _ = strings.Cut(codes, "\n\n")
	var want, got []string
	for _, m := range regexp.MustCompile(`(?m)^ +(\d\S*)  `).FindAllStringSubmatch(codes, -1) {
		want = append(want, m[1])
	}
	text := texts(t)
	for _, m := range regexp.MustCompile(`(?m)^\| (\d\S*) \|`).FindAllStringSubmatch(text["docs/demo.md"], -1) {
		got = append(got, m[1])
	}
	if !slices.Equal(got, want) {
		t.Errorf("docs/demo.md has the exit codes %q, want those of the help, %q", got, want)
	}
	for name, text := range text {
		for _, m := range regexp.MustCompile("(?m)(?:`|^    |^\\$ )demo ([a-z]+)\\b").FindAllStringSubmatch(text, -1) {
			if !regexp.MustCompile(fmt.Sprintf(`(?m)^  %s  `, m[1])).MatchString(help) {
				t.Errorf("%s names the command %q, which the demo lacks", name, m[1])
			}
		}
	}
}

func TestEmbedderGetsThreeModules(t *testing.T) {
	dir := embedder(t, map[string]string{"program": `package main

import (
	_ "qshm/shm"
	_ "qshm/shm/single"
	_ "qshm/shm/stream"
)

func main() {}
`})
	goTool(t, dir, "build", "-o", os.DevNull, "./program")
	var got []string
	gomod, err := os.ReadFile(filepath.Join(dir, "go.mod"))
	must(t, err)
	for _, m := range regexp.MustCompile(`(?m)^\s*(?:require\s+)?([\w.]+[/\w.-]*) v\d`).FindAllSubmatch(gomod, -1) {
		got = append(got, string(m[1]))
	}
	slices.Sort(got)
	want := []string{"github.com/edsrzf/mmap-go", "github.com/gofrs/flock", "golang.org/x/sys", "qshm"}
	if !slices.Equal(got, want) {
		t.Errorf("the go.mod of a program that imports the library requires %v, want %v:\n%s", got, want, gomod)
	}
}
