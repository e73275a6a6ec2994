package procs

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
)

// Listener is a listening unix socket, and a process that has it open.
type Listener struct {
	Path string
	PID  int
}

// Listeners returns the listening unix sockets that were bound to a path for which match
// is true, in this network namespace and in the mount namespace of this process, and that
// a process of this user or of root has open. The path can have been removed, or replaced,
// since: the kernel keeps the name of a socket (unix(7), /proc/net/unix in proc_net(5)). A process
// that has given up privileges can be hidden from this one.
func Listeners(match func(path string) bool) []Listener {
	text, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil // no proc(5)
	}
	paths := make(map[string]string) // by the name of the descriptor
	for line := range strings.Lines(string(text)) {
		if inode, path, ok := listener(strings.TrimSuffix(line, "\n")); ok && match(path) {
			paths["socket:["+inode+"]"] = path
		}
	}
	if len(paths) == 0 {
		return nil
	}
	here, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return nil
	}
	proc, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var all []Listener
	for _, p := range proc {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || !trusted(pid) {
			continue
		}
		if there, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid)); err != nil || there != here {
			continue
		}
		folder := fmt.Sprintf("/proc/%d/fd/", pid)
		fds, _ := os.ReadDir(folder) // it may have ended
		for _, fd := range fds {
			target, _ := os.Readlink(folder + fd.Name()) // it may be closed
			if path, ok := paths[target]; ok {
				all = append(all, Listener{path, pid})
				delete(paths, target)
			}
		}
	}
	return all
}

// listener parses a line of /proc/net/unix. It reports false unless that is of a socket
// that listens and has a name.
func listener(line string) (inode, path string, ok bool) {
	const accepts = 1 << 16 // __SO_ACCEPTCON of linux/net.h
	var fields [7]string    // Num, RefCount, Protocol, Flags, Type, St, Inode
	for i := range fields {
		fields[i], line, ok = strings.Cut(strings.TrimLeft(line, " "), " ")
		if !ok {
			return "", "", false
		}
	}
	flags, err := strconv.ParseUint(fields[3], 16, 32)
	return fields[6], line, err == nil && flags&accepts != 0
}

// trusted reports whether a process is of root or of this user.
func trusted(pid int) bool {
	fi, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return false
	}
	st, ok := fi.Sys().(*syscall.Stat_t)
	return ok && (st.Uid == 0 || int(st.Uid) == os.Geteuid())
}
