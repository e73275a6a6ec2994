package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
)

// build builds one version of this program for each name, as dir/NAME.
func build(ctx context.Context, dir string, names []string, each func(name string)) error {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Path == "" {
		return errors.New("this binary does not know its package: build it in module mode")
	}
	root, err := moduleRoot(ctx)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for _, name := range names {
		each(name)
		// Only the link differs from version to version.
		cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w -X main.version="+name,
			"-o", filepath.Join(dir, name), info.Path)
		cmd.Dir = root
		cmd.Env = append(cmd.Environ(), "GOTMPDIR="+dir) // whatever happens, it goes with the rest
		prepare(cmd)
		// Asked, go ends what it has started as well.
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
		cmd.WaitDelay = 10 * time.Second
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w\n%s", name, err, strings.TrimSpace(string(out)))
		}
	}
	return nil
}

// moduleRoot returns the folder of the module that we are run in.
func moduleRoot(ctx context.Context) (string, error) {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if errors.Is(err, exec.ErrNotFound) {
		return "", fmt.Errorf("the demo builds itself in several versions and needs the go command in PATH: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("go env GOMOD: %w", err)
	}
	mod := strings.TrimSpace(string(out))
	if mod == "" || mod == os.DevNull {
		return "", errors.New("the demo builds itself in several versions: run it inside its module")
	}
	return filepath.Dir(mod), nil
}

// install puts a version at path, by rename: a process that is started at any
// time finds a whole program there, the old one or the new one.
func install(binary, path string) error {
	tmp := path + ".new"
	if err := os.Link(binary, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
