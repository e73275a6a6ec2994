package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// podman runs containers whose images and state are in a folder of its own.
type podman struct {
	dir  string
	conf string
}

// newPodman prepares the namespaces of this process, which no other process shares.
func newPodman(dir, self string) (*podman, error) {
	// podman wants the unified hierarchy, which a hybrid one has elsewhere (cgroups(7)).
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = unix.Mount("proc", "/proc", "proc", 0, "")
	}
	if err == nil {
		_ = unix.Unmount("/sys/fs/cgroup", unix.MNT_DETACH) // it may have several layers, or none
		err = unix.Mount("none", "/sys/fs/cgroup", "cgroup2", 0, "")
	}
	if err == nil {
		err = os.MkdirAll(runtimeDir, 0o755)
	}
	if err == nil { // the pods of the documentation have their folder there
		err = unix.Mount("none", runtimeDir, "tmpfs", 0, "mode=755")
	}
	if err != nil {
		return nil, fmt.Errorf("mounts: %w", err)
	}
	p := &podman{dir: dir, conf: filepath.Join(dir, "containers.conf")}
	// A machine may forbid to raise limits, and cgroups: crun gets by without.
	conf := fmt.Sprintf(`[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "crun-here"
[engine.runtimes]
crun-here = [%q]
`, filepath.Join(dir, "crun-here"))
	crun, err := exec.LookPath("crun")
	if err != nil {
		return nil, err
	}
	// podman may run it without an environment.
	script := fmt.Sprintf("#!/bin/sh\n%s=%q exec %q \"$@\"\n", envRuntime, crun, self)
	return p, errors.Join(os.WriteFile(p.conf, []byte(conf), 0o600), os.WriteFile(filepath.Join(dir, "crun-here"), []byte(script), 0o755))
}

// runtimeMain is an OCI runtime: the program crun, without limits for the container.
func runtimeMain(crun string, args []string) error {
	if i := slices.Index(args, "--bundle"); i >= 0 && i+1 < len(args) {
		if err := unlimited(filepath.Join(args[i+1], "config.json")); err != nil {
			return err
		}
	}
	args = slices.DeleteFunc(args, func(a string) bool { return strings.HasPrefix(a, "--cgroup-manager") || a == "--systemd-cgroup" })
	return unix.Exec(crun, append([]string{"crun", "--cgroup-manager=disabled"}, args...), os.Environ())
}

func unlimited(path string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var config map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		return err
	}
	if linux, ok := config["linux"].(map[string]any); ok {
		delete(linux, "resources")
	}
	if text, err = json.Marshal(config); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func (p *podman) command(ctx context.Context, args ...string) *exec.Cmd {
	all := append([]string{"--root", filepath.Join(p.dir, "images"), "--runroot", filepath.Join(p.dir, "run"), "--storage-driver=vfs"}, args...)
	cmd := exec.CommandContext(ctx, "podman", all...)
	cmd.Env = append(os.Environ(), "CONTAINERS_CONF="+p.conf, "XDG_RUNTIME_DIR="+p.dir)
	return cmd
}

// do runs a podman command and returns what it has written.
func (p *podman) do(ctx context.Context, args ...string) (string, error) {
	out, err := p.command(ctx, args...).CombinedOutput()
	text := strings.TrimSpace(string(out))
	if err != nil {
		return text, fmt.Errorf("podman %s: %w: %s", args[0], err, text)
	}
	return text, nil
}

// errNoContainers says that podman can't run containers on this machine.
var errNoContainers = errors.New("podman can't run containers here")

// check starts a container without a program of Baton, as the rows start theirs, and a
// second process in it.
func (p *podman) check(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, patience, fmt.Errorf("not done within %v", patience))
	defer cancel()
	dir := filepath.Join(p.dir, "check")
	path, err := exec.LookPath("catatonit")
	if err != nil {
		return err
	}
	init, err := os.ReadFile(path)
	if err == nil {
		err = os.Mkdir(dir, 0o700)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "catatonit"), init, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "Containerfile"), []byte("FROM scratch\nCOPY catatonit /\n"), 0o600)
	}
	for _, args := range [][]string{
		{"build", "--isolation=chroot", "--quiet", "--tag", "check", dir},
		{"run", "--detach", "--name", "check", "--read-only", "--network=host", "--volume", runtimeDir + ":" + runtimeDir, "check", "/catatonit", "-P"},
		{"exec", "check", "/catatonit", "--version"},
		{"rm", "--force", "--time=0", "check"},
	} {
		if err == nil {
			_, err = p.do(ctx, args...)
		}
	}
	if ctx.Err() != nil {
		err = errors.Join(context.Cause(ctx), err)
	}
	return err
}

// errLogsEnd says that a container has ended.
var errLogsEnd = errors.New("the container has ended")

// await returns when the container has written a line that holds each of the words.
func (p *podman) await(ctx context.Context, container string, words ...string) error {
	ctx, cancel := context.WithCancel(ctx)
	cmd := p.command(ctx, "logs", "--follow", container)
	r, w, err := os.Pipe()
	if err != nil {
		cancel()
		return err
	}
	defer r.Close()
	cmd.Stdout, cmd.Stderr = w, w
	err = cmd.Start()
	_ = w.Close() // podman has it
	if err != nil {
		cancel()
		return err
	}
	defer func() {
		cancel()
		_ = cmd.Wait() // it was killed
	}()
	last := ""
	for lines := bufio.NewScanner(r); lines.Scan(); last = lines.Text() {
		if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(lines.Text(), word) }) {
			return nil
		}
	}
	return fmt.Errorf("no line with %q from %s: %w (%v); the last one: %s", words, container, errLogsEnd, context.Cause(ctx), last)
}
