package testmain

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// openFiles returns the open descriptors and what they refer to.
func openFiles() map[int]string {
	files := make(map[int]string)
	dir, err := os.Open("/proc/self/fd")
	if err != nil {
		return files
	}
	names, _ := dir.Readdirnames(-1) // what can't be read is not compared
	_ = dir.Close()                  // only read
	for _, name := range names {
		fd, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if target, err := os.Readlink("/proc/self/fd/" + name); err == nil { // the folder's own is closed
			files[fd] = target
		}
	}
	return files
}

// describe says what a descriptor is: a socket's link has only a number.
func describe(fd int, target string) string {
	text := fmt.Sprintf("%d (%s", fd, target)
	if addr, err := unix.Getsockname(fd); err == nil {
		kind, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE) // 0 if it can't be told
		text += fmt.Sprintf(", type %d, bound to %s", kind, address(addr))
		if peer, err := unix.Getpeername(fd); err == nil {
			text += ", peer " + address(peer)
		}
	}
	return text + ")"
}

func address(addr unix.Sockaddr) string {
	switch a := addr.(type) {
	case *unix.SockaddrInet4:
		return fmt.Sprintf("%v port %d", a.Addr, a.Port)
	case *unix.SockaddrInet6:
		return fmt.Sprintf("%x port %d", a.Addr, a.Port)
	case *unix.SockaddrUnix:
		return strconv.Quote(a.Name)
	default:
		return fmt.Sprintf("%T", addr)
	}
}

// leftChildren returns the children that run, or were not waited for.
func leftChildren() []string {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	if err != nil {
		return []string{os.NewSyscallError("waitid", err).Error()}
	}
	var left []string
	lists, _ := filepath.Glob("/proc/self/task/*/children") // CONFIG_PROC_CHILDREN; the pattern is right
	for _, list := range lists {
		pids, _ := os.ReadFile(list) // a thread may have ended
		for pid := range strings.FieldsSeq(string(pids)) {
			comm, _ := os.ReadFile("/proc/" + pid + "/comm") // only for the text
			left = append(left, fmt.Sprintf("%s (%s)", pid, strings.TrimSpace(string(comm))))
		}
	}
	slices.Sort(left)
	if len(left) == 0 {
		left = []string{"unknown"}
	}
	return left
}

func dieWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}

// ownGroup has this process lead a process group, where there is no terminal whose
// signals it must get. Tests stop processes. When one ends whose parent is in another
// group, the kernel sends SIGHUP to an orphaned group that has a stopped member
// (setpgid(2)); that of a CI runner may be orphaned, and includes make. Ours is not, as
// long as go test is our parent.
func ownGroup() {
	if tty, err := os.Open("/dev/tty"); err == nil {
		_ = tty.Close()
		return
	}
	_ = syscall.Setpgid(0, 0) // fails for the leader of a session
}
