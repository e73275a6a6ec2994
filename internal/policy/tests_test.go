package policy_test

import (
	"go/ast"
	"slices"
	"strings"
)

// sleepingTests: a test that sleeps to wait for something is slow where it
// passes and fails where the machine is busy. In a synctest bubble time is not
// real: a file with bubbles may sleep, and should have nothing but bubbles.
func sleepingTests(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		if !s.test() || slices.Contains(s.imports(), "testing/synctest") {
			continue
		}
		for _, c := range s.calls() {
			if c.pkg == "time" && c.name == "Sleep" {
				complaints = append(complaints, r.at(c)+": time.Sleep in a test, wait for what it is to wait for")
			}
		}
	}
	return complaints
}

// skips: a skipped test says why.
func skips(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		for _, c := range s.calls() {
			if (c.name == "Skip" || c.name == "SkipNow") && len(c.Args) == 0 && s.test() {
				complaints = append(complaints, r.at(c)+": "+c.name+" without a reason")
			}
		}
	}
	return complaints
}

// leakGate: the tests of every package run under the gate of internal/testmain.
func leakGate(r *repo) []string {
	gated := make(map[string]bool) // by folder
	for _, s := range r.sources {
		if !s.test() {
			continue
		}
		gated[s.dir()] = gated[s.dir()] || false
		main := false
		for _, decl := range s.Decls {
			d, ok := decl.(*ast.FuncDecl)
			main = main || ok && d.Recv == nil && d.Name.Name == "TestMain"
		}
		for _, c := range s.calls() {
			if main && c.pkg == module+"/internal/testmain" && strings.HasPrefix(c.name, "Run") {
				gated[s.dir()] = true
			}
		}
	}
	var complaints []string
	for dir, ok := range gated {
		if !ok {
			complaints = append(complaints, dir+": no TestMain that calls internal/testmain")
		}
	}
	return complaints
}

// buildConstraints: _unix and _other in a file's name mean nothing to the go
// command, so a line has to say it.
func buildConstraints(r *repo) []string {
	var complaints []string
	for _, s := range r.sources {
		name := strings.TrimSuffix(strings.TrimSuffix(s.path, ".go"), "_test")
		if !strings.HasSuffix(name, "_unix") && !strings.HasSuffix(name, "_other") {
			continue
		}
		found := false
		for _, group := range s.Comments {
			for _, c := range group.List {
				found = found || c.Pos() < s.Package && strings.HasPrefix(c.Text, "//go:build ")
			}
		}
		if !found {
			complaints = append(complaints, s.path+": no //go:build line")
		}
	}
	return complaints
}
