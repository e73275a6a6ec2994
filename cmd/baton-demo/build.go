package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// batonName is the program that upgrades the service.
const batonName = "baton"

// build builds one version of this program for each name, as dir/NAME, and dir/baton,
// the command that upgrades it. It calls each with the number of finished versions,
// from several goroutines.
func build(ctx context.Context, dir string, names []string, each func(built int)) error {
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
	// The first build compiles. The others differ in the link step only, which mostly
	// uses one core.
	if err := buildOne(ctx, root, dir, info.Path, names[0]); err != nil {
		return err
	}
	each(1)
	if err := buildOne(ctx, root, dir, path.Dir(info.Path)+"/"+batonName, batonName); err != nil {
		return err
	}
	var (
		wg    sync.WaitGroup
		errs  = make([]error, len(names))
		built atomic.Int64
		slots = make(chan struct{}, max(2, runtime.NumCPU()))
	)
	built.Store(1)
	for i, name := range names[1:] {
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			if errs[i] = buildOne(ctx, root, dir, info.Path, name); errs[i] == nil {
				each(int(built.Add(1)))
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

func buildOne(ctx context.Context, root, dir, pkg, name string) error {
	cmd := exec.CommandContext(ctx, "go", "build", "-ldflags", "-s -w -X main.version="+name, "-o", filepath.Join(dir, name), pkg)
	cmd.Dir = root
	cmd.Env = append(cmd.Environ(), "GOTMPDIR="+dir) // the folder is removed in the end
	prepare(cmd)
	// On an interrupt, the go command also ends the processes that it has started.
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return fmt.Errorf("build %s: %w\n%s", name, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// moduleRoot returns the folder of the module of the working directory.
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

// install puts a version at path by rename, so that a process that starts at any moment
// finds a whole program.
func install(binary, path string) error {
	tmp := path + ".new"
	if err := os.Link(binary, tmp); err != nil {
		return err
	}
	return os.Rename(tmp, path)
}
