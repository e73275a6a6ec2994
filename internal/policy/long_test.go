package policy_test

import (
	"go/ast"
	"go/parser"
	"path"
	"strconv"
	"strings"
)

// longTests: a test that only make test-all runs names, in its call of
// testenv.Long, one of make test that shows the same promise. Nested modules count.
func longTests(r *repo) []string {
	var complaints []string
	type gate struct{ where, quick string }
	var gates []gate
	long := make(map[string]bool) // by folder and name: whether the whole test is
	for name, text := range r.texts {
		if !strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(r.fset, name, text, 0)
		if err != nil {
			complaints = append(complaints, err.Error())
			continue
		}
		for _, decl := range file.Decls {
			d, ok := decl.(*ast.FuncDecl)
			if !ok || d.Body == nil {
				continue
			}
			test := path.Dir(name) + "." + d.Name.Name
			long[test] = long[test] || false
			whole := make(map[ast.Node]bool) // calls that no condition guards
			for _, stmt := range d.Body.List {
				if e, ok := stmt.(*ast.ExprStmt); ok {
					whole[e.X] = true
				}
			}
			ast.Inspect(d.Body, func(n ast.Node) bool {
				if i, ok := n.(*ast.IfStmt); ok && calls(i.Cond, "testing.Short") && (calls(i.Body, ".Skip") || calls(i.Body, ".Skipf")) {
					complaints = append(complaints, r.at(n)+": skips a test in a short run, without testenv.Long")
				}
				c, ok := n.(*ast.CallExpr)
				if !ok || !calls(c.Fun, "testenv.Long") || len(c.Args) != 2 {
					return true
				}
				lit, ok := c.Args[1].(*ast.BasicLit)
				if !ok {
					complaints = append(complaints, r.at(n)+": the quick test is no text in place")
					return true
				}
				quick, _ := strconv.Unquote(lit.Value) // the parser took it
				if !strings.Contains(quick, ".") {
					quick = path.Dir(name) + "." + quick
				}
				gates = append(gates, gate{r.at(n), quick})
				long[test] = long[test] || whole[c]
				return true
			})
		}
	}
	for _, g := range gates {
		if whole, ok := long[g.quick]; !ok || !strings.HasPrefix(path.Ext(g.quick), ".Test") {
			complaints = append(complaints, g.where+": "+g.quick+" is no test")
		} else if whole {
			complaints = append(complaints, g.where+": "+g.quick+" is long itself")
		}
	}
	return complaints
}

// calls reports whether the node names a function, as package.Name or .Method.
func calls(node ast.Node, name string) bool {
	found := false
	ast.Inspect(node, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			x, _ := sel.X.(*ast.Ident)
			found = found || strings.HasPrefix(name, ".") && name[1:] == sel.Sel.Name || x != nil && name == x.Name+"."+sel.Sel.Name
		}
		return !found
	})
	return found
}
