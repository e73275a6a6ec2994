package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ErrNoNewer says that there is no newer system to be had here.
var ErrNoNewer = errors.New("no newer system to be had")

// newerSuite is the release of Debian that NewerRoot unpacks; with systemd 257.
const newerSuite = "trixie"

// keyring is what its packages are signed with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// NewerRoot unpacks a newer Debian's systemd, and what it takes to run that, into
// dir, for [Config].Root: by apt from this machine's own mirror, with sources and
// folders of apt's in dir, so that nothing else of this machine changes. It takes
// some 80 MB and ten seconds. An error matches [ErrNoNewer] where this machine has
// no apt, no Debian mirror, or no way to it.
func NewerRoot(ctx context.Context, dir string) error {
	mirror, err := debianMirror(ctx)
	if err != nil {
		return err
	}
	apt := filepath.Join(dir, ".apt")
	root := filepath.Join(dir, "root")
	for _, d := range []string{"lists/partial", "cache/archives/partial"} {
		if err := os.MkdirAll(filepath.Join(apt, d), 0o755); err != nil {
			return err
		}
	}
	source := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirror, newerSuite)
	if err := os.WriteFile(filepath.Join(apt, "sources.list"), []byte(source), 0o644); err != nil {
		return err
	}
	get := func(args ...string) error {
		all := []string{"-qq", "--yes"}
		for _, o := range []string{
			"Dir::Etc::sourcelist=" + apt + "/sources.list", "Dir::Etc::sourceparts=/dev/null", "Dir::State::lists=" + apt + "/lists",
			"Dir::Cache=" + apt + "/cache", "Dir::State::status=/dev/null", "APT::Sandbox::User=root", "Debug::NoLocking=1",
			"Acquire::Retries=1", "Acquire::http::Timeout=20",
		} {
			all = append(all, "-o", o)
		}
		return run(ctx, "apt-get", append(all, args...)...)
	}
	if err := get("update"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoNewer, err)
	}
	if err := get("--no-install-recommends", "--download-only", "install", "systemd", "bash", "coreutils", "libc-bin", "grep", "procps", "mount"); err != nil {
		return fmt.Errorf("%w: %w", ErrNoNewer, err)
	}
	if err := skeleton(root); err != nil {
		return err
	}
	debs, err := filepath.Glob(filepath.Join(apt, "cache/archives/*.deb"))
	if err != nil || len(debs) == 0 {
		return fmt.Errorf("apt-get has got no packages: %w", err)
	}
	for _, deb := range debs {
		// As dpkg would, but for the packages' scripts.
		if err := run(ctx, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink`, "sh", deb, root); err != nil {
			return err
		}
	}
	return errors.Join(run(ctx, "ldconfig", "-r", root), os.RemoveAll(apt))
}

// debianMirror returns where this machine gets a Debian's packages from.
func debianMirror(ctx context.Context) (string, error) {
	if _, err := os.Stat(keyring); err != nil {
		return "", fmt.Errorf("%w: no Debian: %w", ErrNoNewer, err)
	}
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN) $(LABEL) $(REPO_URI)").Output()
	if err != nil {
		return "", fmt.Errorf("%w: apt-get indextargets: %w", ErrNoNewer, err)
	}
	for line := range strings.Lines(string(out)) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "Debian" && f[1] == "Debian" { // not Debian-Security
			return f[2], nil
		}
	}
	return "", fmt.Errorf("%w: apt-get knows no mirror of Debian's: apt-get update", ErrNoNewer)
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

// run runs a program of this machine. An error has what it said.
func run(ctx context.Context, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LANG=C.UTF-8")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
