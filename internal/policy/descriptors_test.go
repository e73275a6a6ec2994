package policy_test

import (
	"go/ast"
	"slices"
	"strings"
)

// descriptors: (*os.File).Fd and File of connections and listeners clear
// O_NONBLOCK for every process that shares the socket. internal/fdx has what to
// call instead.
func descriptors(r *repo) []string {
	allowed := exceptions{}
	broken := make(map[string][]string)
	add := func(function, text string) { broken[function] = append(broken[function], text) }
	for _, s := range r.sources {
		if s.dir() == "internal/fdx" {
			continue
		}
		for _, c := range s.calls() {
			if (c.name == "Fd" || c.name == "File") && len(c.Args) == 0 {
				add(s.function(c), r.at(c)+": "+c.name+" may turn a shared socket blocking, see internal/fdx")
			}
		}
	}
	return allowed.check(broken)
}

// closeOnExec: a descriptor is made close-on-exec by the call that makes it: a
// process started by another goroutine between two calls would inherit it.
func closeOnExec(r *repo) []string {
	instead := map[string]string{
		"Dup":    "fcntl(F_DUPFD_CLOEXEC)",
		"Dup2":   "Dup3 with O_CLOEXEC",
		"Pipe":   "os.Pipe, or Pipe2 with O_CLOEXEC",
		"Accept": "Accept4 with SOCK_CLOEXEC",
	}
	flags := map[string]string{
		"Socket": "SOCK_CLOEXEC", "Socketpair": "SOCK_CLOEXEC", "Accept4": "SOCK_CLOEXEC",
		"Open": "O_CLOEXEC", "Openat": "O_CLOEXEC", "Pipe2": "O_CLOEXEC", "Dup3": "O_CLOEXEC",
		"MemfdCreate": "MFD_CLOEXEC", "EpollCreate1": "EPOLL_CLOEXEC", "Eventfd": "EFD_CLOEXEC",
	}
	allowed := exceptions{
		"handoff/internal/spawn/redirect_linux.go replaceStderr": "descriptor 2 is for children too",
	}
	broken := make(map[string][]string)
	add := func(function, text string) { broken[function] = append(broken[function], text) }
	for _, s := range r.sources {
		for _, c := range s.calls() {
			if c.pkg != "syscall" && c.pkg != "golang.org/x/sys/unix" {
				continue
			}
			name := c.pkg[strings.LastIndexByte(c.pkg, '/')+1:] + "." + c.name
			if use := instead[c.name]; use != "" {
				add(s.function(c), r.at(c)+": "+name+" is not close-on-exec, use "+use)
			}
			if flag := flags[c.name]; flag != "" && !mentions(c.CallExpr, flag) {
				add(s.function(c), r.at(c)+": "+name+" without "+flag)
			}
		}
	}
	return allowed.check(broken)
}

// mentions reports whether a call's arguments have an identifier.
func mentions(c *ast.CallExpr, name string) bool {
	return slices.ContainsFunc(c.Args, func(arg ast.Expr) bool {
		found := false
		ast.Inspect(arg, func(n ast.Node) bool {
			id, ok := n.(*ast.Ident)
			found = found || ok && id.Name == name
			return !found
		})
		return found
	})
}
