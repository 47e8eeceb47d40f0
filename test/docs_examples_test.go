package test

import (
	"go/ast"
	"go/build"
	"go/doc"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// In the packages that programs import, each exported function and each method of an
// exported type is called in an example whose output go test checks.
func TestExamplesUseTheWholeAPI(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("the go command is not on the path")
	}
	if len(os.Getenv("QSHM_TEST_EXEC")) > 0 || testing.Short() {
		t.Skip("slow, because it reads the sources of the standard library; the result is the same on every machine")
	}
	cgo := build.Default.CgoEnabled
	build.Default.CgoEnabled = false // the importer would run cgo
	defer func() { build.Default.CgoEnabled = cgo }()

	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "source", nil)
	for _, path := range []string{"shm", "shm/stream", "shm/single"} {
		pkg, err := imports.Import("qshm/" + path)
		if err != nil {
			t.Fatal(err)
		}
		used := usedInExamples(t, fset, imports, filepath.Join("..", filepath.FromSlash(path)), pkg.Path())
		scope := pkg.Scope()
		for _, name := range scope.Names() {
			switch obj := scope.Lookup(name).(type) {
			case *types.Func:
				if obj.Exported() && !used[obj.FullName()] {
					t.Errorf("no example calls %s", obj.FullName())
				}
			case *types.TypeName:
				named, ok := obj.Type().(*types.Named)
				if !ok || !obj.Exported() {
					continue
				}
				for m := range named.Methods() {
					if m.Exported() && !used[m.FullName()] {
						t.Errorf("no example calls %s", m.FullName())
					}
				}
			}
		}
	}
}

// usedInExamples returns the functions of package path that the examples in dir use.
func usedInExamples(t *testing.T, fset *token.FileSet, imports types.Importer, dir, path string) map[string]bool {
	t.Helper()
	var files []*ast.File
	names, err := filepath.Glob(filepath.Join(dir, "example*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		f, err := parser.ParseFile(fset, name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: imports}
	if _, err := config.Check(path+"_test", fset, files, &info); err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	for _, e := range doc.Examples(files...) {
		if e.Output == "" && !e.EmptyOutput {
			t.Errorf("%s: Example%s has no output that go test checks", strings.TrimPrefix(dir, "../"), e.Name)
		}
		ast.Inspect(e.Code, func(n ast.Node) bool {
			if id, ok := n.(*ast.Ident); ok {
				if f, ok := info.Uses[id].(*types.Func); ok {
					used[f.Origin().FullName()] = true
				}
			}
			return true
		})
	}
	return used
}
