package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// TestCached knows where old and new suites have what is needed.
func TestCached(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		files []string
		ok    bool
	}{
		"old":           {[]string{"boot/vmlinuz-6.1-x", "lib/modules/6.1-x/modules.builtin", "bin/busybox"}, true},
		"new":           {[]string{"usr/lib/modules/6.1-x/vmlinuz", "usr/lib/modules/6.1-x/modules.builtin", "usr/bin/busybox"}, true},
		"no image":      {[]string{"lib/modules/6.1-x/modules.builtin", "bin/busybox"}, false},
		"another's":     {[]string{"boot/vmlinuz-6.2-x", "lib/modules/6.1-x/modules.builtin", "bin/busybox"}, false},
		"no busybox":    {[]string{"boot/vmlinuz-6.1-x", "lib/modules/6.1-x/modules.builtin"}, false},
		"two kernels":   {[]string{"boot/vmlinuz-6.1-x", "lib/modules/6.1-x/a", "lib/modules/6.2-x/a", "bin/busybox"}, false},
		"nothing there": {nil, false},
	} {
		cache := t.TempDir()
		for _, f := range c.files {
			path := filepath.Join(cache, "suite", f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, nil, 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		k, err := cached(cache, "suite")
		if (err == nil) != c.ok || err != nil && !errors.Is(err, fs.ErrNotExist) || c.ok && k.release() != "6.1-x" {
			t.Errorf("%s: cached() = %+v, %v", name, k, err)
		}
	}
}

// TestModuleFiles tells modules that are files from those that are built in, and
// from those that are not there.
func TestModuleFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	if err := errors.Join(
		os.MkdirAll(filepath.Join(dir, "kernel/net"), 0o755),
		os.WriteFile(filepath.Join(dir, "modules.builtin"), []byte("kernel/net/ipv4/tcp-diag.ko\n"), 0o644),
		os.WriteFile(filepath.Join(dir, "kernel/net/veth.ko"), []byte("no module"), 0o644),
	); err != nil {
		t.Fatal(err)
	}
	k := kernel{modules: dir}
	mods, absent, err := k.load([]string{"tcp_diag", "tun"})
	if err != nil || len(mods) != 0 || !slices.Equal(absent, []string{"tun"}) {
		t.Errorf("load() = %d modules, without %q, %v; want none to load, no tun", len(mods), absent, err)
	}
	if _, _, err := k.load([]string{"veth"}); err == nil {
		t.Error("load() of a file that is no module = nil")
	}
}
