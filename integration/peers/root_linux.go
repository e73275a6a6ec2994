package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/seed-11c92bf9/baton/integration/internal/debian"
)

// suite is the Debian suite of the peers: nginx has keepalive_min_timeout since
// 1.27.4, which no stable one has.
const suite = "sid"

// packages are what the root is made of.
func packages() []string {
	return []string{"nginx-light", "haproxy", "apache2-bin", "caddy", "puma", "unicorn", "uwsgi-core", "uwsgi-plugin-python3", "libc-bin"}
}

// complete is a file of a root that has all packages.
const complete = ".peers"

// makeRoot unpacks the peers into a folder, unless it has them, and asks nothing
// of the machine but apt's tools: no package is installed, no script of one is run.
func makeRoot(ctx context.Context, root string, tell func(string)) error {
	want := suite + " " + strings.Join(packages(), " ") + "\n"
	if have, err := os.ReadFile(filepath.Join(root, complete)); err == nil && string(have) == want {
		return nil
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("servers of Debian %s are not to be had: it takes root to run them in a folder of their own", suite)
	}
	if err := os.RemoveAll(root); err != nil { // a half one
		return err
	}
	work := root + ".apt"
	defer os.RemoveAll(work) // the downloads
	tell("apt-get update for Debian " + suite)
	apt, err := debian.New(ctx, work, suite)
	if err != nil {
		return fmt.Errorf("servers of Debian %s: %w", suite, err)
	}
	tell("downloading " + strings.Join(packages(), ", "))
	debs, err := apt.DownloadAll(ctx, packages()...)
	if err != nil {
		return err
	}
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "proc", "dev", "run", "tmp", "etc", "var/log/nginx"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	tell(fmt.Sprintf("unpacking %d packages into %s", len(debs), root))
	if err := debian.Unpack(ctx, root, debs...); err != nil {
		return err
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nwww-data:x:33:33::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
		"etc/group":  "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if err := debian.Ldconfig(ctx, root); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, complete), []byte(want), 0o644)
}
