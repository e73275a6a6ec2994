package policy_test

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strings"
)

// packageDocs: the doc of a package is in doc.go only, and begins as go doc
// wants it.
func packageDocs(r *repo) []string {
	var complaints []string
	documented := make(map[string]bool) // by folder
	for _, s := range r.sources {
		if s.test() {
			if s.Doc != nil {
				complaints = append(complaints, s.path+": package doc outside doc.go")
			}
			continue
		}
		inDoc := path.Base(s.path) == "doc.go" && s.Doc != nil
		documented[s.dir()] = documented[s.dir()] || inDoc
		if s.Doc == nil {
			continue
		}
		begin := "Package " + s.Name.Name + " "
		if s.Name.Name == "main" { // the program's name, as go.dev/doc/comment#cmd has it
			program := path.Base(s.dir())
			begin = strings.ToUpper(program[:1]) + program[1:] + " "
		}
		if !inDoc {
			complaints = append(complaints, s.path+": package doc outside doc.go")
		} else if text := s.Doc.Text(); !strings.HasPrefix(text, begin) && !strings.HasPrefix(text, "Command "+strings.ToLower(begin)) {
			complaints = append(complaints, s.path+": doc does not begin with "+begin)
		}
	}
	for dir, ok := range documented {
		if !ok {
			complaints = append(complaints, dir+": no package doc in doc.go")
		}
	}
	return complaints
}

// wellKnown are methods whose meaning the standard library has fixed.
var wellKnown = []string{"Error", "Unwrap", "String"}

// exportDocs: whatever the public packages export has a doc comment; that of a
// function, method, type or lone value begins with its name.
func exportDocs(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		if s.test() || s.Name.Name == "main" || slices.Contains(strings.Split(s.path, "/"), "internal") {
			continue
		}
		check := func(node ast.Node, name string, doc *ast.CommentGroup) {
			short := name[strings.LastIndexByte(name, '.')+1:]
			if !ast.IsExported(short) || slices.Contains(wellKnown, name[strings.IndexByte(name, '.')+1:]) && short != name {
				return
			}
			if text := doc.Text(); text == "" {
				complaints = append(complaints, r.at(node)+": "+name+" has no doc")
			} else if !regexp.MustCompile(`^(An? |The )?` + short + `\b`).MatchString(text) {
				complaints = append(complaints, r.at(node)+": doc of "+name+" does not begin with its name")
			}
		}
		for _, decl := range s.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				name := d.Name.Name
				if d.Recv != nil {
					recv := receiver(d.Recv.List[0].Type)
					if !ast.IsExported(recv) {
						continue
					}
					name = recv + "." + name
				}
				check(d, name, d.Doc)
			case *ast.GenDecl:
				for _, spec := range d.Specs {
					switch spec := spec.(type) {
					case *ast.TypeSpec:
						doc := spec.Doc
						if doc == nil && !d.Lparen.IsValid() {
							doc = d.Doc
						}
						check(spec, spec.Name.Name, doc)
						if ast.IsExported(spec.Name.Name) {
							complaints = append(complaints, fieldDocs(r, spec)...)
						}
					case *ast.ValueSpec:
						group := d.Lparen.IsValid()
						if group && (d.Doc != nil || spec.Comment != nil) {
							continue // said for the group, or beside it
						}
						doc := spec.Doc
						if !group {
							doc = d.Doc
						}
						check(spec, spec.Names[0].Name, doc)
					}
				}
			}
		}
	}
	return complaints
}

// fieldDocs: each exported field of a Config, and each method of an interface,
// has a doc, or that of another mentions it.
func fieldDocs(r *repo, spec *ast.TypeSpec) []string {
	var list *ast.FieldList
	switch t := spec.Type.(type) {
	case *ast.StructType:
		if !strings.HasSuffix(spec.Name.Name, "Config") {
			return nil
		}
		list = t.Fields
	case *ast.InterfaceType:
		list = t.Methods
	default:
		return nil
	}
	var docs strings.Builder
	for _, field := range list.List {
		docs.WriteString(field.Doc.Text())
	}
	var complaints []string
	for _, field := range list.List {
		for _, name := range field.Names {
			if name.IsExported() && field.Doc == nil && field.Comment == nil &&
				!regexp.MustCompile(`\b`+name.Name+`\b`).MatchString(docs.String()) {
				complaints = append(complaints, r.at(field)+": "+spec.Name.Name+"."+name.Name+" has no doc")
			}
		}
	}
	return complaints
}

// receiver returns the name of a receiver's type.
func receiver(t ast.Expr) string {
	switch t := t.(type) {
	case *ast.StarExpr:
		return receiver(t.X)
	case *ast.IndexExpr:
		return receiver(t.X)
	case *ast.IndexListExpr:
		return receiver(t.X)
	case *ast.Ident:
		return t.Name
	}
	return ""
}

// inits: no package does work when it is imported.
func inits(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		for _, decl := range s.Decls {
			if d, ok := decl.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == "init" {
				complaints = append(complaints, r.at(d)+": init does work at import")
			}
		}
	}
	return complaints
}

// errorTexts: an error says what was done, not that it failed.
func errorTexts(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		if s.test() {
			continue
		}
		for _, c := range s.calls() {
			if c.name != "New" && c.name != "Errorf" {
				continue
			}
			ast.Inspect(c.CallExpr, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && strings.Contains(lit.Value, "failed to ") {
					complaints = append(complaints, r.at(lit)+": error text with \"failed to\", want what was being done")
				}
				return true
			})
		}
	}
	return complaints
}
