package machine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed-11c92bf9/baton/integration/internal/debian"
)

// ErrNoNewer says that there is no newer system to be had here.
var ErrNoNewer = errors.New("no newer system to be had")

// newerSuite is the release of Debian that NewerRoot unpacks; with systemd 257.
const newerSuite = "trixie"

// NewerRoot unpacks a newer Debian's systemd, and what it takes to run that, into
// the folder root below dir, for [Config].Root. It takes some 80 MB and ten
// seconds. An error matches [ErrNoNewer] where there are no packages of it to be had.
func NewerRoot(ctx context.Context, dir string) error {
	work, root := filepath.Join(dir, ".apt"), filepath.Join(dir, "root")
	defer os.RemoveAll(work) // the downloads
	apt, err := debian.New(ctx, work, newerSuite)
	if errors.Is(err, debian.ErrUnavailable) {
		return fmt.Errorf("%w: %w", ErrNoNewer, err)
	}
	if err != nil {
		return err
	}
	debs, err := apt.DownloadAll(ctx, "systemd", "bash", "coreutils", "libc-bin", "grep", "procps", "mount")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoNewer, err)
	}
	if err := skeleton(root); err != nil {
		return err
	}
	if err := debian.Unpack(ctx, root, debs...); err != nil {
		return err
	}
	return debian.Ldconfig(ctx, root)
}

// skeleton makes what the packages' scripts would have made.
func skeleton(root string) error {
	for _, d := range []string{
		"usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "proc", "sys", "dev", "run", "tmp", "root", "etc",
		"var/log", "var/tmp", "var/lib/systemd",
	} {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	for name, to := range map[string]string{"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64", "var/run": "../run"} {
		if err := os.Symlink(to, filepath.Join(root, name)); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/root:/bin/bash\nnobody:x:65534:65534::/nonexistent:/usr/sbin/nologin\n",
		"etc/group":  "root:x:0:\ntty:x:5:\nsystemd-journal:x:999:\nnogroup:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}
