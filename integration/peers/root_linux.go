package main

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
	var missing []string
	if os.Geteuid() != 0 {
		missing = append(missing, "root")
	}
	for _, program := range []string{"apt-get", "dpkg-deb", "tar", "ldconfig"} {
		if _, err := exec.LookPath(program); err != nil {
			missing = append(missing, program)
		}
	}
	const keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
	if _, err := os.Stat(keyring); err != nil {
		missing = append(missing, keyring+" (package debian-archive-keyring)")
	}
	if len(missing) > 0 {
		return fmt.Errorf("servers of Debian %s are not to be had, for want of %s", suite, strings.Join(missing, ", "))
	}
	if err := os.RemoveAll(root); err != nil { // a half one
		return err
	}
	apt := root + ".apt"
	defer os.RemoveAll(apt) // the downloads
	for _, dir := range []string{apt + "/lists/partial", apt + "/cache/archives/partial", root + "/usr/bin", root + "/usr/sbin", root + "/usr/lib", root + "/usr/lib64", root + "/proc", root + "/dev", root + "/run", root + "/tmp", root + "/etc", root + "/var/log/nginx"} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+dir, filepath.Join(root, dir)); err != nil {
			return err
		}
	}
	tell("apt-get update for Debian " + suite)
	mirror, err := output(ctx, "apt-get", "indextargets", "--format", "$(REPO_URI)")
	if err != nil {
		return err
	}
	uri := ""
	for line := range strings.Lines(mirror) {
		if line = strings.TrimSpace(line); line != "" && !strings.Contains(line, "security") {
			uri = line
			break
		}
	}
	if uri == "" {
		return errors.New("apt has no Debian mirror in its sources (apt-get update?)")
	}
	list := fmt.Sprintf("deb [signed-by=%s] %s %s main\n", keyring, uri, suite)
	if err := os.WriteFile(apt+"/sources.list", []byte(list), 0o644); err != nil {
		return err
	}
	options := []string{
		"-qq", "-y", "-o", "Dir::Etc::sourcelist=" + apt + "/sources.list", "-o", "Dir::Etc::sourceparts=/dev/null",
		"-o", "Dir::State::lists=" + apt + "/lists", "-o", "Dir::Cache=" + apt + "/cache",
		"-o", "Dir::State::status=/dev/null", "-o", "APT::Sandbox::User=root", "-o", "Debug::NoLocking=1",
	}
	if _, err := output(ctx, "apt-get", append(options, "update")...); err != nil {
		return err
	}
	tell("downloading " + strings.Join(packages(), ", "))
	if _, err := output(ctx, "apt-get", append(append(options, "--no-install-recommends", "--download-only", "install"), packages()...)...); err != nil {
		return err
	}
	debs, err := filepath.Glob(apt + "/cache/archives/*.deb")
	if err != nil {
		return err
	}
	tell(fmt.Sprintf("unpacking %d packages into %s", len(debs), root))
	for _, deb := range debs {
		if _, err := output(ctx, "sh", "-c", `dpkg-deb --fsys-tarfile "$1" | tar -x -C "$2" --keep-directory-symlink`, "sh", deb, root); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{
		"etc/passwd": "root:x:0:0:root:/:/usr/sbin/nologin\nwww-data:x:33:33::/:/usr/sbin/nologin\nnobody:x:65534:65534::/:/usr/sbin/nologin\n",
		"etc/group":  "root:x:0:\nwww-data:x:33:\nnogroup:x:65534:\n",
	} {
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	if _, err := output(ctx, "ldconfig", "-r", root); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, complete), []byte(want), 0o644)
}

// output runs a command and returns what it prints.
func output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, errs.String())
	}
	return out.String(), nil
}
