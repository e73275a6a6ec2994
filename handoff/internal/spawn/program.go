package spawn

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Program is what an upgrade starts.
type Program struct {
	Path string      // absolute
	Name string      // os.Args[0] of the successor
	root os.FileInfo // nil, or the root folder when the program was found
	Args []string    // without the name
	Dir  string      // the working directory
	Env  []string    // the environment

	Given fdx.Given // what else it inherits
}

// Resolve returns the program that an upgrade starts. An empty path means the program
// that this process runs, nil args mean its arguments, an empty dir the folder in which
// it runs. The working directory and PATH may change before the program is started, so
// both are looked up now.
func Resolve(path string, args []string, dir string, env []string) (Program, error) {
	name := os.Args[0]
	wd, err := folder(name)
	if err != nil {
		return Program{}, fmt.Errorf("working directory: %w", err)
	}
	if path == "" {
		path = own(name, wd)
	} else if !filepath.IsAbs(path) {
		path = filepath.Join(wd, path)
	}
	if !filepath.IsAbs(dir) {
		dir = filepath.Join(wd, dir)
	}
	if args == nil {
		args = os.Args[1:]
	}
	root, _ := os.Stat("/") // nil: the reason of a failed start is less exact
	return Program{Path: path, Name: name, Args: slices.Clone(args), Dir: dir, Env: slices.Clone(env), root: root}, nil
}

// own returns the path of the program that this process runs, which was started under
// name in the folder wd: name itself, or where PATH leads it, if that is the running
// file. A name that leads to another file, or to none, can be one that the program was
// only given (exec -a NAME, ExecStart=@ of systemd.service(5)), and the path is that of
// the running file. It can also be a path that has led there until a release script
// moved a link in it, or replaced or renamed the file.
func own(name, wd string) string {
	path := name
	if !strings.Contains(name, "/") {
		path, _ = exec.LookPath(name) // empty: it was not started by that name
	}
	if path != "" && !filepath.IsAbs(path) {
		path = filepath.Join(wd, path)
	}
	const self = "/proc/self/exe"
	exe, err := os.Readlink(self)
	if err != nil { // without proc(5)
		return cmp.Or(path, filepath.Join(wd, name))
	}
	leads := func(path string) bool {
		running, err := os.Stat(self)
		found, ferr := os.Stat(path)
		return err == nil && ferr == nil && os.SameFile(found, running)
	}
	moved := !leads(exe) || path != resolved(path) || filepath.Dir(path) == filepath.Dir(exe)
	_, gone := os.Stat(path)
	if leads(path) || strings.Contains(name, "/") && moved && gone == nil {
		return path
	}
	return strings.TrimSuffix(exe, " (deleted)") // proc_pid_exe(5)
}

// Same reports whether another process runs the very file that this one runs.
func Same(pid int) bool {
	if pid == os.Getpid() { // it is in another PID namespace
		return false
	}
	ours, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false
	}
	theirs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && os.SameFile(ours, theirs)
}

// Check turns the usual reasons why a program can't be started into advice.
func (p *Program) Check() error {
	_, err := os.Stat(p.Path)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && strings.Contains(p.Path, string(os.PathSeparator)+"go-build"):
		return fmt.Errorf("%w: %s is gone: `go run` removes its binary when the process that it started ends: build with `go build` and start that: %w", failure.Start, p.Path, err)
	case errors.Is(err, os.ErrNotExist) && p.moved():
		return fmt.Errorf("%w: %s is missing: this process has changed its root folder since its start (chroot): install the new version below that root, or start it by hand: %w", failure.Start, p.Path, err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s is gone: install the new version at that path, or set Config.Executable: %w", failure.Start, p.Path, err)
	default:
		return fmt.Errorf("%w: %w", failure.Start, err)
	}
	if _, err := exec.LookPath(p.Path); err != nil { // it may not be executed
		return p.Explain(err)
	}
	if _, err := os.Stat(p.Dir); err != nil {
		return fmt.Errorf("%w: the working directory of the successor is not accessible: start the service below a link that leads to the newest release, or set Config.Dir: %w", failure.Start, err)
	}
	return nil
}

// moved reports whether this process has another root folder than when the program was
// found (chroot(2)).
func (p *Program) moved() bool {
	root, err := os.Stat("/")
	return err == nil && p.root != nil && !os.SameFile(root, p.root)
}

// Start starts the program and returns its process and our end of the conversation, for
// which [fdx.SenderCred] names the process that speaks first.
func (p *Program) Start() (*Process, *net.UnixConn, error) {
	if err := p.Check(); err != nil {
		return nil, nil, err
	}
	ours, theirs, err := fdx.SocketPair("conversation")
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close() // the successor has its own copy
	if err := fdx.ExpectCred(ours); err != nil {
		_ = ours.Close() // no process has the other end
		return nil, nil, err
	}
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Args[0] = p.Name
	cmd.Dir = p.Dir
	cmd.ExtraFiles = []*os.File{theirs}
	given := p.Given.Numbers()
	cmd.Env = append(slices.Clone(p.Env), "PWD="+p.Dir, envConversation+"="+strconv.Itoa(conversationAt(given)), fdx.EnvGiven+"="+p.Given.String()) // exec.Cmd uses the last of a name
	c, err := start(cmd, given)
	if err != nil {
		_ = ours.Close() // no process has the other end
		return nil, nil, p.Explain(err)
	}
	return c, ours, nil
}
