package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/ulikunitz/xz"
)

// A module is one of the kernel's, as init loads it.
type module struct {
	name string
	elf  []byte
}

// wantedModules are what tests need of the kernel beyond what is built in: in a
// machine with modprobe the kernel would ask for most of them itself.
var wantedModules = []string{"inet_diag", "tcp_diag", "udp_diag", "unix_diag", "mptcp_diag", "tun", "veth", "sch_netem"}

// load returns the modules of these names and those that they depend on, in the
// order in which they can be loaded, and the names that the kernel does not have.
func (k kernel) load(names []string) (mods []module, absent []string, err error) {
	files, err := k.moduleFiles()
	if err != nil {
		return nil, nil, err
	}
	done := make(map[string]bool)
	var add func(name string) error
	add = func(name string) error {
		path, known := files[name]
		if done[name] || known && path == "" { // loaded, or built in
			return nil
		}
		done[name] = true
		if !known {
			absent = append(absent, name)
			return nil
		}
		m := module{name: name}
		var err error
		if m.elf, err = readModule(path); err != nil {
			return err
		}
		depends, err := m.depends()
		if err != nil {
			return fmt.Errorf("%s: %w", path, err)
		}
		for _, d := range depends {
			if err := add(d); err != nil {
				return err
			}
		}
		mods = append(mods, m)
		return nil
	}
	for _, name := range names {
		if err := add(name); err != nil {
			return nil, nil, err
		}
	}
	return mods, absent, nil
}

// moduleFiles returns the kernel's modules by name, with an empty path for those
// that are built in.
func (k kernel) moduleFiles() (map[string]string, error) {
	files := make(map[string]string)
	builtin, err := os.ReadFile(filepath.Join(k.modules, "modules.builtin"))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for line := range strings.Lines(string(builtin)) {
		files[moduleName(line)] = ""
	}
	err = filepath.WalkDir(k.modules, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() && strings.Contains(filepath.Base(path), ".ko") {
			files[moduleName(path)] = path
		}
		return err
	})
	return files, err
}

// moduleName returns the name of a module's file, which may have dashes.
func moduleName(path string) string {
	name, _, _ := strings.Cut(filepath.Base(strings.TrimSpace(path)), ".ko")
	return strings.ReplaceAll(name, "-", "_")
}

// readModule reads a module, which may be compressed.
func readModule(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, ".xz") {
		return b, err
	}
	r, err := xz.NewReader(bytes.NewReader(b))
	if err == nil {
		b, err = io.ReadAll(r)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

// depends returns the names of the modules that must be loaded before m: the
// kernel's build notes them in m (modinfo -F depends).
func (m module) depends() ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(m.elf))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, errors.New("no section .modinfo: not a module")
	}
	info, err := section.Data()
	if err != nil {
		return nil, err
	}
	var names []string
	for entry := range bytes.SplitSeq(info, []byte{0}) {
		if list, ok := strings.CutPrefix(string(entry), "depends="); ok && list != "" {
			for name := range strings.SplitSeq(list, ",") {
				names = append(names, moduleName(name))
			}
		}
	}
	return names, nil
}
