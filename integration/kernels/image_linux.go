package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/cavaliergopher/cpio"
)

// An image is an initramfs in the making: a cpio archive in the format "newc",
// which the kernel unpacks into its root (Documentation/driver-api/early-userspace).
type image struct {
	w    *cpio.Writer
	dirs map[string]bool
}

func newImage(w *cpio.Writer) *image { return &image{w: w, dirs: map[string]bool{".": true}} }

// mkdir adds a folder and those above it.
func (i *image) mkdir(dir string) error {
	dir = path.Clean(strings.TrimPrefix(dir, "/"))
	if i.dirs[dir] {
		return nil
	}
	if err := i.mkdir(path.Dir(dir)); err != nil {
		return err
	}
	i.dirs[dir] = true
	return i.w.WriteHeader(&cpio.Header{Name: dir, Mode: cpio.TypeDir | 0o755, Links: 2})
}

// add adds a file.
func (i *image) add(name string, content []byte, perm fs.FileMode) error {
	name = path.Clean(strings.TrimPrefix(name, "/"))
	if err := i.mkdir(path.Dir(name)); err != nil {
		return err
	}
	h := &cpio.Header{Name: name, Mode: cpio.TypeReg | cpio.FileMode(perm.Perm()), Size: int64(len(content)), Links: 1}
	if err := i.w.WriteHeader(h); err != nil {
		return err
	}
	_, err := i.w.Write(content)
	return err
}

// copy adds a file of this machine.
func (i *image) copy(name, from string, perm fs.FileMode) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return i.add(name, b, perm)
}

// sourceDir is where the repository is in the machine.
const sourceDir = "/baton"

// writeImage writes what a kernel needs to run the binaries, and returns the
// names of the modules that it lacks.
func writeImage(file string, k kernel, self string, bins binaries) (absent []string, err error) {
	mods, absent, err := k.load(wantedModules)
	if err != nil {
		return nil, fmt.Errorf("modules of kernel %s: %w", k.release(), err)
	}
	var buf bytes.Buffer
	i := newImage(cpio.NewWriter(&buf))
	p := plan{Runs: bins.runs}
	var errs firstError
	for _, dir := range []string{"proc", "sys", "dev", "tmp", "run", "root", "var/tmp"} {
		errs.note(i.mkdir(dir))
	}
	errs.note(i.copy("init", self, 0o755))
	errs.note(i.copy("bin/busybox", k.busybox, 0o755))
	errs.note(i.add("etc/passwd", []byte("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n"), 0o644))
	errs.note(i.add("etc/group", []byte("root:x:0:\nnogroup:x:65534:\n"), 0o644))
	errs.note(i.add("etc/hosts", []byte("127.0.0.1 localhost\n::1 localhost\n"), 0o644))
	for _, m := range mods {
		name := "/modules/" + m.name + ".ko"
		p.Modules = append(p.Modules, name)
		errs.note(i.add(name, m.elf, 0o644))
	}
	for _, name := range bins.sources {
		errs.note(i.copy(path.Join(sourceDir, filepath.ToSlash(name)), filepath.Join(bins.root, name), 0o644))
	}
	for _, r := range bins.runs {
		errs.note(i.mkdir(r.Dir))
		errs.note(i.copy(r.Path, bins.files[r.Path], 0o755))
	}
	b, err := json.Marshal(p)
	errs.note(err)
	errs.note(i.add(planFile, b, 0o644))
	errs.note(i.w.Close())
	if errs.err != nil {
		return nil, fmt.Errorf("initramfs: %w", errs.err)
	}
	return absent, os.WriteFile(file, buf.Bytes(), 0o600)
}

// firstError keeps the first error of several steps.
type firstError struct{ err error }

func (f *firstError) note(err error) {
	if f.err == nil {
		f.err = err
	}
}
