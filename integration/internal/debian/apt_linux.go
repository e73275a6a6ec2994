package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// ErrUnavailable says that there are no packages to be had here: no apt, no
// Debian, no mirror, or no way to it. The text says which.
var ErrUnavailable = errors.New("no packages of Debian to be had")

// keyring is what the packages are signed with.
const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// An Apt is apt for one release, in a folder.
type Apt struct {
	dir     string
	options []string
}

// New gets the lists of a suite into dir, which is made if it has to be, and is
// the caller's to remove. Options are further options of apt.conf(5). An error
// matches [ErrUnavailable].
func New(ctx context.Context, dir, suite string, options ...string) (*Apt, error) {
	if missing := lacks(); len(missing) > 0 {
		return nil, fmt.Errorf("%w: this machine lacks %s", ErrUnavailable, strings.Join(missing, ", "))
	}
	mirrors, err := mirrors(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	a := &Apt{dir: dir}
	for _, sub := range []string{"lists/partial", "cache/archives/partial", "debs"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return nil, err
		}
	}
	list := filepath.Join(dir, "sources.list")
	for _, o := range slices.Concat(options, []string{
		"Dir::Etc::sourcelist=" + list, "Dir::Etc::sourceparts=/dev/null", "Dir::State::status=/dev/null",
		"Dir::State::lists=" + filepath.Join(dir, "lists"), "Dir::Cache=" + filepath.Join(dir, "cache"),
		"APT::Sandbox::User=root", "Debug::NoLocking=1", "Acquire::Retries=1", "Acquire::http::Timeout=20",
	}) {
		a.options = append(a.options, "-o", o)
	}
	main := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, mirrors["Debian"], suite)
	both := main
	if security := mirrors["Debian-Security"]; security != "" {
		both += fmt.Sprintf("deb [signed-by=%s] %s %s-security main\n", keyring, security, suite)
	}
	// With the newest fixes where there are any: the unstable suite has none.
	for _, lines := range []string{both, main} {
		if err := os.WriteFile(list, []byte(lines), 0o600); err != nil {
			return nil, err
		}
		if _, err = a.Run(ctx, "apt-get", "-qq", "update"); err == nil {
			return a, nil
		}
	}
	return nil, fmt.Errorf("%w: suite %s, which may have left the mirror: %w", ErrUnavailable, suite, err)
}

// lacks returns what there has to be and is not.
func lacks() (missing []string) {
	for _, program := range []string{"apt-get", "apt-cache", "dpkg-deb", "tar"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	if _, err := os.Stat(keyring); err != nil {
		missing = append(missing, keyring+" (package debian-archive-keyring)")
	}
	return missing
}

// mirrors returns where this machine has Debian's packages from, by label.
func mirrors(ctx context.Context) (map[string]string, error) {
	out, err := run(ctx, "", "apt-get", "indextargets", "--format", "$(REPO_URI) $(ORIGIN) $(LABEL)")
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 3 && f[1] == "Debian" {
			all[f[2]] = f[0]
		}
	}
	if all["Debian"] == "" {
		return nil, errors.New("apt knows no mirror of Debian: run apt-get update as root, on Debian")
	}
	return all, nil
}

// Run runs one of apt's programs on the suite, in the folder of what [Apt.Download]
// gets, and returns what it prints. An error has its last words.
func (a *Apt) Run(ctx context.Context, name string, args ...string) (string, error) {
	return run(ctx, filepath.Join(a.dir, "debs"), name, append(slices.Clone(a.options), args...)...)
}

// Download gets a package alone, and returns its file.
func (a *Apt) Download(ctx context.Context, name string) (deb string, err error) {
	if _, err := a.Run(ctx, "apt-get", "-qq", "download", name); err != nil {
		return "", err
	}
	return only(filepath.Join(a.dir, "debs", name+"_*.deb"))
}

// DownloadAll gets packages and all that they depend on, and returns their files.
func (a *Apt) DownloadAll(ctx context.Context, names ...string) (debs []string, err error) {
	args := append([]string{"-qq", "--yes", "--no-install-recommends", "--download-only", "install"}, names...)
	if _, err := a.Run(ctx, "apt-get", args...); err != nil {
		return nil, err
	}
	debs, err = filepath.Glob(filepath.Join(a.dir, "cache/archives/*.deb"))
	if err == nil && len(debs) == 0 {
		err = errors.New("apt-get has got no packages")
	}
	return debs, err
}

// Unpack unpacks packages into root, as dpkg does, but for their scripts.
func Unpack(ctx context.Context, root string, debs ...string) error {
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	for _, deb := range debs {
		if _, err := run(ctx, "", "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink`, "sh", deb, root); err != nil {
			return err
		}
	}
	return nil
}

// Ldconfig makes the cache of the linker of a system that was unpacked, which a
// script of a package would have made. It takes root.
func Ldconfig(ctx context.Context, root string) error {
	_, err := run(ctx, "", "ldconfig", "-r", root)
	return err
}

// only returns the one file that the pattern matches.
func only(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err == nil && len(found) != 1 {
		err = fmt.Errorf("%s: %d files, want one", pattern, len(found))
	}
	if err != nil {
		return "", err
	}
	return found[0], nil
}

func run(ctx context.Context, dir, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		lines := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		return "", fmt.Errorf("%s: %w: %s", name, err, lines[len(lines)-1])
	}
	return string(out), nil
}
