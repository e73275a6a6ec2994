package spawn

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/procs"
)

// Watcher returns what ends with this process and ends a successor by that, or "": this
// process is PID 1 of its PID namespace, or PID 1 has started it and ends with it, as
// tini, dumb-init, catatonit and a shell do, or a shell that PID 1 has started. It is
// asked before the parent of this process can have changed. Without /proc it is not known.
// `baton run` says in the environment that it stays (procs.EnvSupervisor).
func Watcher() string {
	if os.Getpid() == 1 {
		return "this process is PID 1 of its PID namespace"
	}
	var st syscall.Stat_t
	const initial = 0xEFFFFFFC // PROC_PID_INIT_INO, include/linux/proc_ns.h
	if err := syscall.Stat("/proc/self/ns/pid", &st); err != nil || st.Ino == initial {
		return "" // the end of PID 1 is that of the machine
	}
	for pid := os.Getpid(); ; {
		parent, err := procs.Parent(pid)
		if err != nil || parent == 0 { // outside of the namespace
			return ""
		}
		name, err := commOf(parent)
		shell := slices.Contains(shells, name)
		if err != nil || shell && !sameGroup(parent, pid) { // an interactive one stays
			return ""
		}
		known := shell || slices.Contains(watchers, name)
		if parent == 1 && !slices.Contains(supervisors, name) && !procs.Supervises(parent) && (known || sameSession(parent, pid)) {
			return fmt.Sprintf("%s, PID 1 of the PID namespace, has started this process and ends with it", name)
		}
		if parent == 1 || !known {
			return ""
		}
		pid = parent
	}
}

var (
	shells      = []string{"sh", "bash", "dash", "ash", "busybox", "ksh", "zsh"}
	watchers    = []string{"tini", "docker-init", "dumb-init", "catatonit", "podman-init", "su", "sudo", "runuser"}
	supervisors = []string{"systemd", "init", "supervisord", "runsvdir", "runit", "s6-svscan", "openrc-init"}
)

// sameSession tells the child of an unknown PID 1 from an orphan, as of `docker exec`,
// whose parent PID 1 has become.
func sameSession(a, b int) bool {
	x, err := unix.Getsid(a)
	y, err2 := unix.Getsid(b)
	return err == nil && err2 == nil && x == y
}

func sameGroup(a, b int) bool {
	x, err := syscall.Getpgid(a)
	y, err2 := syscall.Getpgid(b)
	return err == nil && err2 == nil && x == y
}

// commOf returns the name of a process. podman calls its catatonit /dev/init.
func commOf(pid int) (string, error) {
	if cmdline, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "cmdline")); err == nil && bytes.HasPrefix(cmdline, []byte("/dev/init\x00")) {
		return "catatonit", nil
	}
	b, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "comm"))
	return strings.TrimSpace(string(b)), err
}
