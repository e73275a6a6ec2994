package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// binaries are the tests as programs, and what they read.
type binaries struct {
	root    string // of the repository
	sources []string
	runs    []run
	files   map[string]string // by run.Path
}

// repository returns the root of the checkout that this folder is in.
func repository(ctx context.Context) (string, error) {
	out, err := command(ctx, ".", "go", "list", "-m", "-f", "{{.Dir}}", "github.com/seed-11c92bf9/baton")
	return strings.TrimSpace(out), err
}

// build compiles the tests of packages, which are folders in the repository,
// without cgo, so that they need no library.
func build(ctx context.Context, root, dir string, packages []string, args []string) (binaries, error) {
	b := binaries{root: root, files: make(map[string]string)}
	// The checkout may be another user's.
	out, err := command(ctx, root, "git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	if err != nil {
		return b, err
	}
	for name := range strings.SplitSeq(strings.TrimRight(out, "\x00"), "\x00") {
		if st, err := os.Lstat(filepath.Join(root, name)); err == nil && st.Mode().IsRegular() { // others are of no use to tests
			b.sources = append(b.sources, name)
		}
	}
	for _, pkg := range packages {
		name := strings.ReplaceAll(pkg, "/", "-") + ".test"
		file := filepath.Join(dir, name)
		if _, err := command(ctx, filepath.Join(root, pkg), "go", "test", "-c", "-buildvcs=false", "-ldflags=-s -w", "-o", file, "."); err != nil {
			return b, err
		}
		if _, err := os.Stat(file); err != nil {
			return b, fmt.Errorf("%s has no tests: %w", pkg, fs.ErrNotExist)
		}
		r := run{
			Package: pkg, Path: path.Join("/tests", name), Dir: path.Join(sourceDir, pkg),
			Args: []string{"-test.v=test2json", "-test.paniconexit0", "-test.short", "-test.parallel=1"},
		}
		if pkg == gauntletPackage {
			r.Args = append(r.Args, "-test.run="+gauntletTests)
		}
		r.Args = append(r.Args, args...) // the last -test.run counts
		b.runs = append(b.runs, r)
		b.files[r.Path] = file
	}
	return b, nil
}

// buildSelf compiles this program as the machine's init.
func buildSelf(ctx context.Context, root, file string) error {
	_, err := command(ctx, filepath.Join(root, "integration", "kernels"), "go", "build", "-buildvcs=false", "-ldflags=-s -w", "-o", file, ".")
	return err
}

// command runs a command, and returns its standard output.
func command(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64", "GOWORK=off")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, stderr.Bytes())
	}
	return string(out), nil
}
