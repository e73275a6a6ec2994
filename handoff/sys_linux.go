package handoff

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// supported reports why a mode can't work here; on Linux all can.
func supported() error { return nil }

// spawned reports whether a predecessor has started this process. It must be
// asked before join has taken that out of the environment.
func spawned() bool { return os.Getenv(envConversation) != "" || os.Getenv(envTableflip) != "" }

// unixConn makes a connection of fd, which it takes.
func unixConn(fd int) (*net.UnixConn, error) {
	c, err := fdx.Conn(fd, "conversation")
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close() // whatever it is
		return nil, fmt.Errorf("a %T is no unix socket", c)
	}
	return uc, nil
}

// raise sends a signal to this process. It has come when raise returns.
func raise(s os.Signal) {
	n, ok := s.(syscall.Signal)
	if !ok {
		return
	}
	runtime.LockOSThread() // the kernel may take its time for another thread
	defer runtime.UnlockOSThread()
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), n) // ourselves
}

// descends reports whether pid is a child of ours, or one of its descendants. One
// that has ended, or is in no PID namespace below ours, is not. Where there is no
// proc(5) to ask, anybody but this process is taken for one.
func descends(pid int) bool {
	own := os.Getpid()
	for pid > 1 && pid != own {
		ppid, err := parent(pid)
		if err != nil {
			_, err := parent(own)
			return err != nil
		}
		if ppid == own {
			return true
		}
		pid = ppid
	}
	return false
}

// parent returns the parent's process ID (proc_pid_stat(5), field 4).
func parent(pid int) (int, error) {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, err
	}
	// The name, in parentheses, can have spaces and parentheses itself.
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
	if len(fields) < 2 {
		return 0, fmt.Errorf("/proc/%d/stat: %q", pid, text)
	}
	return strconv.Atoi(fields[1])
}

// findChild returns the process ID of a child of ours that was started with
// name in its environment, or 0.
func findChild(name string) int {
	lists, err := filepath.Glob("/proc/self/task/*/children") // proc(5); CONFIG_PROC_CHILDREN
	if err != nil {
		return 0
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue // that thread has ended
		}
		for pid := range strings.FieldsSeq(string(text)) {
			env, err := os.ReadFile("/proc/" + pid + "/environ")
			if err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+name+"=")) {
				n, _ := strconv.Atoi(pid) // the kernel prints numbers
				return n
			}
		}
	}
	return 0
}
