package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// prefix begins the names of a machine's folders; the process ID of its owner comes
// next.
const prefix = "baton-systemd-"

// cgroup2 returns where the unified hierarchy is mounted: /sys/fs/cgroup, or
// below it where there are controllers of version 1 as well.
func cgroup2() (string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 2 && f[2] == "cgroup2" {
			return f[1], nil
		}
	}
	return "", errors.New("no cgroup2 hierarchy is mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
}

// makeCgroup makes a folder in the hierarchy, and opens it.
func (m *Machine) makeCgroup() (*os.File, error) {
	top, err := cgroup2()
	if err != nil {
		return nil, err
	}
	sweep(top)
	if m.cgroup, err = os.MkdirTemp(top, fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
		return nil, err
	}
	f, err := os.Open(m.cgroup)
	if err != nil {
		return nil, errors.Join(err, os.Remove(m.cgroup))
	}
	return f, nil
}

// removeCgroup removes the folder. Its processes have been killed, but the kernel
// may still be taking them out.
func (m *Machine) removeCgroup() error {
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // no event tells of it
		err := removeTree(m.cgroup)
		if err == nil || time.Now().After(end) {
			return err
		}
	}
}

// removeTree removes a tree of cgroups, whose files can't be removed and need not.
func removeTree(top string) error {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if e := os.Remove(dirs[i]); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// sweep removes what owners that were killed have left. Cgroups that hold
// processes can't be removed.
func sweep(top string) {
	for _, parent := range []string{top, os.TempDir()} {
		dirs, _ := filepath.Glob(filepath.Join(parent, prefix+"*")) // the pattern is good
		for _, dir := range dirs {
			owner, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(dir), prefix), "-")
			pid, err := strconv.Atoi(owner)
			if err != nil {
				continue
			}
			if _, err := os.Stat(filepath.Join("/proc", owner)); !errors.Is(err, fs.ErrNotExist) || pid <= 0 {
				continue
			}
			_ = os.Remove(filepath.Join(dir, consoleName)) // of a cgroup there is none
			_ = removeTree(dir)                            // the next one tries again
		}
	}
}
