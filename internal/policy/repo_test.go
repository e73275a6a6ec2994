package policy_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// module is the path of the module that the rules are about.
const module = "github.com/seed-11c92bf9/baton"

// repo is the module's files as they lie in the folder, of every platform.
type repo struct {
	fset    *token.FileSet
	sources []*source         // of the module itself, sorted by path
	texts   map[string][]byte // all files with text, nested modules included
}

// source is one Go file.
type source struct {
	path string // slash-separated, relative to the module
	text []byte
	*ast.File
}

func (s *source) dir() string { return path.Dir(s.path) }

// test reports whether the file is compiled into tests only.
func (s *source) test() bool { return strings.HasSuffix(s.path, "_test.go") }

// imports returns the paths that the file imports.
func (s *source) imports() []string {
	var paths []string
	for _, spec := range s.Imports {
		paths = append(paths, strings.Trim(spec.Path.Value, "`\""))
	}
	return paths
}

// at names the place of a node.
func (r *repo) at(node ast.Node) string {
	pos := r.fset.Position(node.Pos())
	return fmt.Sprintf("%s:%d", pos.Filename, pos.Line)
}

// load reads a repo. Nested modules are rooms of their own: only their texts
// are looked at. testdata and hidden folders are left out, but for CI's.
func load(t *testing.T, fsys fs.FS) *repo {
	t.Helper()
	r := &repo{fset: token.NewFileSet(), texts: make(map[string][]byte)}
	nested := ""
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name != "." && (d.Name() == "testdata" || d.Name() == "bin" ||
				strings.HasPrefix(d.Name(), ".") && d.Name() != ".ci" && d.Name() != ".github" && d.Name() != ".githooks") {
				return fs.SkipDir
			}
			if _, err := fs.Stat(fsys, path.Join(name, "go.mod")); err == nil && name != "." {
				nested = name + "/"
			}
			return nil
		}
		if !d.Type().IsRegular() || d.Name() == ".git" { // a file in a linked worktree
			return nil
		}
		text, err := fs.ReadFile(fsys, name)
		if err != nil {
			return err
		}
		if bytes.IndexByte(text, 0) < 0 {
			r.texts[name] = text
		}
		if path.Ext(name) != ".go" || nested != "" && strings.HasPrefix(name, nested) {
			return nil
		}
		file, err := parser.ParseFile(r.fset, name, text, parser.ParseComments)
		if err != nil {
			return err
		}
		r.sources = append(r.sources, &source{path: name, text: text, File: file})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(r.sources, func(a, b *source) int { return strings.Compare(a.path, b.path) })
	return r
}

// call is a call of x.name, with the package of x if it is one.
type call struct {
	*ast.CallExpr
	name string
	pkg  string // import path, or empty
}

// calls returns the calls of a file that have a selector.
func (s *source) calls() []call {
	names := make(map[string]string) // of imports
	for _, spec := range s.Imports {
		p := strings.Trim(spec.Path.Value, "`\"")
		name := path.Base(p)
		if spec.Name != nil {
			name = spec.Name.Name
		}
		names[name] = p
	}
	var found []call
	ast.Inspect(s.File, func(n ast.Node) bool {
		c, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := c.Fun.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		pkg := ""
		if x, ok := sel.X.(*ast.Ident); ok {
			pkg = names[x.Name]
		}
		found = append(found, call{c, sel.Sel.Name, pkg})
		return true
	})
	return found
}

// function names the file and the top-level function that a node is in.
func (s *source) function(node ast.Node) string {
	for _, decl := range s.Decls {
		if d, ok := decl.(*ast.FuncDecl); ok && d.Pos() <= node.Pos() && node.Pos() < d.End() {
			return s.path + " " + d.Name.Name
		}
	}
	return s.path
}

// exceptions are what a rule lets pass, as [source.function] names it, with the
// reason.
type exceptions map[string]string

// check returns what is broken and no exception, and the exceptions that break
// nothing. The keys of broken are as those of exceptions.
func (e exceptions) check(broken map[string][]string) []string {
	var complaints []string
	for function, places := range broken {
		if e[function] == "" {
			complaints = append(complaints, places...)
		}
	}
	for function := range e {
		if broken[function] == nil {
			complaints = append(complaints, function+": is an exception of a rule that it no longer breaks")
		}
	}
	return complaints
}
