package policy_test

import (
	"fmt"
	"go/ast"
	"path"
	"regexp"
	"slices"
	"strings"
)

// faces are the public packages that callers is about.
var faces = []string{"handoff", "handoff/control", "handoff/handoffdebug", "handoff/handoffhttp", "reuseport"}

// standard are the methods that an interface of the standard library, or of a server
// that takes a net.PacketConn, asks for.
var standard = []string{"Error", "Unwrap", "LocalAddr", "SetReadBuffer", "SetWriteBuffer", "ReadMsgUDP", "WriteMsgUDP", "ReadBatch", "WriteBatch", "WriteMsgUDPAddrPort"}

var selector = regexp.MustCompile(`(\w*)\.(\w+)(\(?)`)

// callers: another package, an example or a recipe uses each exported function
// and method of a public package. It compares names, and so passes a method
// whose name is common.
func callers(r *repo) []string {
	var complaints []string
	for _, face := range faces {
		used := make(map[string]bool) // package.Name, and .Method
		for name, text := range r.texts {
			dir, file := path.Split(name)
			example := strings.HasPrefix(file, "example") || strings.HasPrefix(file, "readme")
			if path.Ext(file) != ".go" || !example && (dir == face+"/" || strings.HasSuffix(file, "_test.go") && !strings.HasPrefix(dir, "integration/")) {
				continue
			}
			for _, m := range selector.FindAllSubmatch(text, -1) {
				used[string(m[1])+"."+string(m[2])] = true
				if len(m[3]) > 0 {
					used["."+string(m[2])] = true
				}
			}
		}
		for _, s := range r.sources {
			if s.dir() != face || s.test() {
				continue
			}
			for _, decl := range s.Decls {
				d, ok := decl.(*ast.FuncDecl)
				if !ok || !d.Name.IsExported() || d.Recv != nil && !ast.IsExported(receiver(d.Recv.List[0].Type)) {
					continue
				}
				key := path.Base(face) + "." + d.Name.Name
				if d.Recv != nil {
					key = "." + d.Name.Name
				}
				if !used[key] && (d.Recv == nil || !slices.Contains(standard, d.Name.Name)) {
					complaints = append(complaints, fmt.Sprintf("%s: no other package, example or recipe uses %s", r.at(d), d.Name.Name))
				}
			}
		}
	}
	return complaints
}
