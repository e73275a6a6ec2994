package spawn

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// launch is cmd.Start for a command whose standard streams and one extra file are files. The
// process inherits those, the last with the number that conversationAt returns, and given,
// and nothing else.
func launch(cmd *exec.Cmd, given []int) error {
	files := append([]*os.File{cmd.Stdin.(*os.File), cmd.Stdout.(*os.File), cmd.Stderr.(*os.File)}, cmd.ExtraFiles...)
	attr := &syscall.ProcAttr{Dir: cmd.Dir, Env: cmd.Environ(), Sys: cmd.SysProcAttr, Files: make([]uintptr, max(2, slices.Max(append(given, conversationAt(given))))+1)}
	for i := range attr.Files {
		attr.Files[i] = ^uintptr(0) // closed in the process
	}
	for _, fd := range given {
		attr.Files[fd] = uintptr(fd)
	}
	for i, f := range files {
		fd, err := fdx.Number(f)
		if err != nil {
			return err
		}
		if i > 2 {
			i = conversationAt(given)
		}
		attr.Files[i] = uintptr(fd)
	}
	var pid int
	var err error
	// os.StartProcess would keep a pidfd, whose number means nothing outside of this thread.
	fdx.Alone(func() { pid, err = syscall.ForkExec(cmd.Path, cmd.Args, attr) })
	runtime.KeepAlive(files)
	if err != nil {
		return &os.PathError{Op: "fork/exec", Path: cmd.Path, Err: err}
	}
	cmd.Process, err = os.FindProcess(pid) // a child: the number stays its own until it is waited for
	return err
}
