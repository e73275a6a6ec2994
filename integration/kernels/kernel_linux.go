package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// A kernel is what a Debian suite has, unpacked.
type kernel struct {
	suite   string
	image   string // the file to boot
	modules string // the folder of its modules, which has the name of its release
	busybox string
}

// release is the kernel's, as uname -r will say.
func (k kernel) release() string { return filepath.Base(k.modules) }

// cacheDir is where kernels are kept.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	return filepath.Join(dir, "baton-kernels"), err
}

// cached returns the kernel of a suite that was fetched before. An error that
// matches fs.ErrNotExist says that there is none.
func cached(cache, suite string) (kernel, error) {
	k := kernel{suite: suite}
	dir := filepath.Join(cache, suite)
	// Newer suites have all below /usr, and the image beside its modules.
	var err error
	if k.modules, err = only(filepath.Join(dir, "lib/modules/*"), filepath.Join(dir, "usr/lib/modules/*")); err != nil {
		return k, err
	}
	if k.image, err = only(filepath.Join(dir, "boot", "vmlinuz-"+k.release()), filepath.Join(k.modules, "vmlinuz")); err != nil {
		return k, err
	}
	k.busybox, err = only(filepath.Join(dir, "bin/busybox"), filepath.Join(dir, "usr/bin/busybox"))
	return k, err
}

// only returns the one file that one of the patterns matches.
func only(patterns ...string) (string, error) {
	var found []string
	for _, pattern := range patterns {
		more, err := filepath.Glob(pattern)
		if err != nil {
			return "", err
		}
		found = append(found, more...)
	}
	if len(found) != 1 {
		return "", fmt.Errorf("%s: %d files, want one: %w", strings.Join(patterns, ", "), len(found), fs.ErrNotExist)
	}
	return found[0], nil
}

// fetch downloads the kernel of a suite, and unpacks it in the cache.
func fetch(ctx context.Context, cache, suite string) (kernel, error) {
	for _, tool := range []string{"apt-get", "apt-cache", "dpkg-deb"} {
		if _, err := exec.LookPath(tool); err != nil {
			return kernel{}, fmt.Errorf("fetch the kernel of %s: needs apt, as on Debian: %w", suite, err)
		}
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(work)
	a, err := newApt(ctx, work, suite)
	if err != nil {
		return kernel{}, err
	}
	names, err := a.kernelPackages(ctx)
	if err != nil {
		return kernel{}, err
	}
	tree := filepath.Join(work, "tree")
	for _, name := range append(names, "busybox-static") {
		if err := a.unpack(ctx, name, tree); err != nil {
			return kernel{}, err
		}
	}
	dir := filepath.Join(cache, suite)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(tree, dir)); err != nil {
		return kernel{}, err
	}
	return cached(cache, suite)
}

// apt is apt-get with lists and caches of its own, for one suite. It changes
// nothing of the machine's, and needs no root.
type apt struct {
	suite   string
	dir     string
	options []string
}

const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

func newApt(ctx context.Context, dir, suite string) (*apt, error) {
	a := &apt{suite: suite, dir: dir}
	if runtime.GOARCH != "amd64" {
		return nil, fmt.Errorf("fetch the kernel of %s: only amd64 is emulated, not %s: %w", suite, runtime.GOARCH, errors.ErrUnsupported)
	}
	mirrors, err := a.mirrors(ctx)
	if err != nil {
		return nil, err
	}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(dir, "sources.list")
	for _, o := range []string{
		"APT::Architecture=amd64", "APT::Architectures=amd64", "APT::Sandbox::User=root",
		"Dir::Etc::sourcelist=" + list, "Dir::Etc::sourceparts=/dev/null", "Dir::State::status=/dev/null",
		"Dir::State::lists=" + filepath.Join(dir, "lists"), "Dir::Cache=" + filepath.Join(dir, "cache"),
	} {
		a.options = append(a.options, "-o", o)
	}
	main := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s main\n", keyring, mirrors["Debian"], suite)
	security := fmt.Sprintf("deb [arch=amd64 signed-by=%s] %s %s-security main\n", keyring, mirrors["Debian-Security"], suite)
	// Where there are, the newest fixes: unstable suites have none.
	for _, lines := range []string{main + security, main} {
		if err := os.WriteFile(list, []byte(lines), 0o600); err != nil {
			return nil, err
		}
		if _, err = a.run(ctx, "apt-get", "-qq", "update"); err == nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("fetch the kernel of %s, which may have left the mirror %s: %w", suite, mirrors["Debian"], err)
}

// mirrors returns where this machine has its packages from, by label.
func (a *apt) mirrors(ctx context.Context) (map[string]string, error) {
	out, err := a.run(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)")
	if err != nil {
		return nil, err
	}
	mirrors := make(map[string]string)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == "Debian" {
			mirrors[f[2]] = f[0]
		}
	}
	if mirrors["Debian"] == "" {
		return nil, fmt.Errorf("fetch the kernel of %s: apt has no list of Debian's packages here: run apt-get update as root, on Debian", a.suite)
	}
	return mirrors, nil
}

// kernelPackages returns the packages of the suite's kernel for virtual
// machines: one, or where it was taken apart, several.
func (a *apt) kernelPackages(ctx context.Context) ([]string, error) {
	out, err := a.run(ctx, "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
		"--no-breaks", "--no-replaces", "--no-enhances", "linux-image-cloud-amd64")
	if err != nil {
		return nil, err
	}
	var names []string
	for _, name := range regexp.MustCompile(`(?m)^linux-(?:image|binary|modules)-[0-9]\S+$`).FindAllString(out, -1) {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil, fmt.Errorf("suite %s has no linux-image-cloud-amd64", a.suite)
	}
	return names, nil
}

// unpack downloads a package and unpacks it in tree.
func (a *apt) unpack(ctx context.Context, name, tree string) error {
	debs := filepath.Join(a.dir, "debs")
	if _, err := a.run(ctx, "apt-get", "-qq", "download", name); err != nil {
		return err
	}
	deb, err := only(filepath.Join(debs, name+"_*.deb"))
	if err != nil {
		return err
	}
	_, err = a.run(ctx, "dpkg-deb", "--extract", deb, tree)
	return err
}

func (a *apt) run(ctx context.Context, name string, args ...string) (string, error) {
	command := name + " " + strings.Join(args, " ")
	if strings.HasPrefix(name, "apt") {
		args = append(slices.Clone(a.options), args...)
	}
	cmd := exec.CommandContext(ctx, name, args...)
	if len(a.options) > 0 {
		cmd.Dir = filepath.Join(a.dir, "debs")
	}
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", command, err, lastLine(stderr.Bytes()))
	}
	return string(out), nil
}

// lastLine returns the last line that says something.
func lastLine(b []byte) (last string) {
	for sc := bufio.NewScanner(bytes.NewReader(b)); sc.Scan(); {
		if line := strings.TrimSpace(sc.Text()); line != "" {
			last = line
		}
	}
	return last
}
