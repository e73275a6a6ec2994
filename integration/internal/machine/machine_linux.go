package machine

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A Command returns the command that runs [Init] with args in a process of its
// own.
type Command func(args ...string) *exec.Cmd

// Config says what is booted.
type Config struct {
	// Command starts the process that becomes systemd. Required.
	Command Command
	// Root is a folder with a system, as [NewerRoot] makes one. Empty means the
	// one that this process is in.
	Root string
}

// Machine is a systemd and what runs in it. Its methods may be called from
// several goroutines.
type Machine struct {
	// Version is systemd's.
	Version int

	pid    int    // of the inner PID 1, in our namespace
	dir    string // of ours
	cgroup string
	ended  chan struct{} // closed when it has ended
	quit   chan struct{} // closed to let the thread that started it go
}

// consoleName is the file with what systemd's console would show.
const consoleName = "console"

// bootTimeout bounds a boot, which takes 0.2 s on a machine with nothing else to
// do.
const bootTimeout = 90 * time.Second

// Boot boots a systemd, and returns when all of its jobs are done.
func Boot(ctx context.Context, c Config) (_ *Machine, err error) {
	m := &Machine{ended: make(chan struct{}), quit: make(chan struct{})}
	ctx, cancel := context.WithTimeoutCause(ctx, bootTimeout, fmt.Errorf("systemd has not booted within %v", bootTimeout))
	defer cancel()
	if m.dir, err = os.MkdirTemp("", fmt.Sprintf("%s%d-", prefix, os.Getpid())); err != nil {
		return nil, err
	}
	console, err := os.Create(filepath.Join(m.dir, consoleName))
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(m.dir))
	}
	defer console.Close() // systemd has its own
	group, err := m.makeCgroup()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(m.dir))
	}
	defer group.Close() // only looked at
	spec, err := json.Marshal(initSpec{Root: c.Root, New: filepath.Join(m.dir, "root"), Program: program(c.Root)})
	if err != nil {
		return nil, err
	}
	cmd := c.Command(string(spec))
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, console, console
	rc, err := group.SyscallConn()
	if err != nil {
		return nil, err
	}
	var started error
	err = rc.Control(func(fd uintptr) {
		cmd.SysProcAttr = &syscall.SysProcAttr{
			Cloneflags:  unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC,
			UseCgroupFD: true, CgroupFD: int(fd),
			Setsid: true, Pdeathsig: syscall.SIGKILL,
		}
		started = m.start(cmd)
	})
	if err = errors.Join(err, started); err != nil {
		return nil, errors.Join(fmt.Errorf("start the machine: %w", err), m.removeCgroup(), os.RemoveAll(m.dir))
	}
	if err := m.await(ctx); err != nil {
		text, _ := os.ReadFile(console.Name()) // what there is
		return nil, errors.Join(fmt.Errorf("boot systemd: %w\n%s", err, bytes.TrimSpace(text)), m.Close())
	}
	return m, nil
}

// start starts systemd from a thread that lives as long: with it, the kernel
// would end its child (Pdeathsig).
func (m *Machine) start(cmd *exec.Cmd) error {
	started := make(chan error)
	go func() { // ends with quit
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			<-m.quit
		}
	}()
	if err := <-started; err != nil {
		close(m.ended)
		return err
	}
	m.pid = cmd.Process.Pid
	go func() { // ends with systemd, for which Close waits
		_ = cmd.Wait() // it never ends by itself
		close(m.ended)
	}()
	return nil
}

// await waits until systemd has booted.
func (m *Machine) await(ctx context.Context) error {
	for {
		// It is there last, when jobs can be asked for.
		if _, err := os.Stat(m.Path("/run/systemd/private")); err == nil {
			break
		}
		select {
		case <-m.ended:
			return errors.New("it has ended")
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond): // no event tells of it
		}
	}
	// "degraded" is an exit status, and a fault of units that are none of ours.
	state, err := m.Output(ctx, "systemctl", "is-system-running", "--wait")
	if s := strings.TrimSpace(state); s != "running" && s != "degraded" {
		return fmt.Errorf("it is %q: %w", s, err)
	}
	text, err := m.Output(ctx, "systemctl", "--version")
	if err != nil {
		return err
	}
	_, err = fmt.Sscanf(text, "systemd %d", &m.Version)
	return err
}

// Path returns the path by which a file of the machine is reached from outside.
func (m *Machine) Path(path string) string {
	return filepath.Join("/proc", strconv.Itoa(m.pid), "root", path)
}

// Signal sends a signal to systemd itself, as from its hardware: SIGSTOP halts
// it.
func (m *Machine) Signal(s syscall.Signal) error {
	return os.NewSyscallError("kill", syscall.Kill(m.pid, s))
}

// Command returns a command that runs a program in the machine, under no unit.
// It ends with the machine, or with ctx.
func (m *Machine) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	// Namespaces do not protect the clock, for example: capabilities have to be dropped.
	enter := []string{
		"--bounding-set=-" + strings.Join(forbidden(), ",-"), "--", "nsenter", "--target", strconv.Itoa(m.pid),
		"--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup", "--", name,
	}
	cmd := exec.CommandContext(ctx, "setpriv", append(enter, args...)...)
	cmd.Env = []string{"PATH=/usr/local/bin:/usr/bin:/usr/sbin:/bin:/sbin", "LANG=C.UTF-8", "SYSTEMD_COLORS=0", "SYSTEMD_PAGER="}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	// nsenter forks: the program is in another PID namespace than itself.
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Output runs a program in the machine and returns its standard output. An error
// has its standard error.
func (m *Machine) Output(ctx context.Context, name string, args ...string) (string, error) {
	var out, errs bytes.Buffer
	cmd := m.Command(ctx, name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w: %s", strings.Join(append([]string{name}, args...), " "), err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), err
}

// Install puts a copy of a program into the machine's /usr/local/bin, by rename,
// so that it is a new version to those that start it by its path.
func (m *Machine) Install(file, name string) error {
	from, err := os.Open(file)
	if err != nil {
		return err
	}
	defer from.Close() // only read
	path := m.Path("/usr/local/bin/" + name)
	to, err := os.OpenFile(path+".new", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(to, from)
	if err = errors.Join(err, to.Close()); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// WriteFile writes a file of the machine, and makes the folders above it.
func (m *Machine) WriteFile(path, text string) error {
	path = m.Path(path)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// Close ends systemd and all that runs in the machine, and removes what there was
// of it.
func (m *Machine) Close() error {
	select {
	case <-m.ended:
	default:
		_ = syscall.Kill(m.pid, syscall.SIGKILL) // its namespace goes with it
		<-m.ended
	}
	close(m.quit)
	return errors.Join(m.removeCgroup(), os.RemoveAll(m.dir))
}

// forbidden are the capabilities that reach beyond namespaces, as setpriv(1) calls
// them.
func forbidden() []string {
	return []string{"sys_time", "sys_module", "sys_boot", "sys_rawio", "wake_alarm", "mac_admin", "mac_override", "syslog", "audit_control"}
}

// program is the path of systemd's own program in a system.
func program(root string) string {
	for _, path := range []string{"/usr/lib/systemd/systemd", "/lib/systemd/systemd"} {
		if _, err := os.Stat(filepath.Join(root, path)); err == nil {
			return path
		}
	}
	return ""
}
