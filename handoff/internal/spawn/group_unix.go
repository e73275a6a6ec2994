//go:build unix

package spawn

import (
	"os/exec"
	"syscall"
)

// ownGroup has cmd start in a process group of its own: a wrapper that does not exec can
// be ended with what it has started. Until its New a signal of the terminal (Ctrl-C) does
// not reach it, and it is stopped where it reads from the terminal (SIGTTIN, setpgid(2)).
func ownGroup(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

// killGroup kills a child that was not waited for, and its process group.
func killGroup(cmd *exec.Cmd) {
	_ = syscall.Kill(cmd.Process.Pid, syscall.SIGKILL)  // it has ended
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // likewise
}

// JoinGroup has this process leave the process group that its predecessor pid has started
// it in, for that of pid: what signals the group (a terminal, a supervisor) reaches this
// process as it reaches the predecessor, and the end of the predecessor does not make an
// orphaned group, whose stopped members the kernel ends by SIGHUP. The predecessor knows
// this process by then, and finds it outside of the group (Process.SpokenFor). Where it can't, because the predecessor has ended or is in another
// session or PID namespace, the process stays in its group.
func JoinGroup(pid int) {
	if pid <= 0 {
		return
	}
	if group, err := syscall.Getpgid(pid); err == nil && group != syscall.Getpgrp() {
		_ = syscall.Setpgid(0, group)
	}
}
