package testmain

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
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
	_ = dir.Close()
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

// leftChildren reports a child that still runs, or was not waited for.
func leftChildren() error {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
	if errors.Is(err, unix.ECHILD) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("waitid: %w", err)
	}
	return errors.New("a child process is left, running or not waited for")
}

func dieWithUs(cmd *exec.Cmd) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
}
