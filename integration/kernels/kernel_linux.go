package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"

	"github.com/seed-11c92bf9/baton/integration/internal/debian"
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
	if runtime.GOARCH != "amd64" {
		return kernel{}, fmt.Errorf("fetch the kernel of %s: only amd64 is emulated, not %s: %w", suite, runtime.GOARCH, errors.ErrUnsupported)
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return kernel{}, err
	}
	work, err := os.MkdirTemp(cache, "fetch-")
	if err != nil {
		return kernel{}, err
	}
	defer os.RemoveAll(work)
	apt, err := debian.New(ctx, work, suite, "APT::Architecture=amd64", "APT::Architectures=amd64")
	if err != nil {
		return kernel{}, fmt.Errorf("fetch the kernel: %w", err)
	}
	names, err := kernelPackages(ctx, apt, suite)
	if err != nil {
		return kernel{}, err
	}
	tree := filepath.Join(work, "tree")
	for _, name := range append(names, "busybox-static") {
		deb, err := apt.Download(ctx, name)
		if err == nil {
			err = debian.Unpack(ctx, tree, deb)
		}
		if err != nil {
			return kernel{}, err
		}
	}
	dir := filepath.Join(cache, suite)
	if err := errors.Join(os.RemoveAll(dir), os.Rename(tree, dir)); err != nil {
		return kernel{}, err
	}
	return cached(cache, suite)
}

// kernelPackages returns the packages of the suite's kernel for virtual
// machines: one, or where it was taken apart, several.
func kernelPackages(ctx context.Context, apt *debian.Apt, suite string) ([]string, error) {
	out, err := apt.Run(ctx, "apt-cache", "depends", "--recurse", "--no-recommends", "--no-suggests", "--no-conflicts",
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
		return nil, fmt.Errorf("suite %s has no linux-image-cloud-amd64", suite)
	}
	return names, nil
}
