package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// envRole makes this program one of the machine's two processes. The kernel
// passes what it does not know of its command line to init's environment.
const envRole = "BATON_KERNELS_ROLE"

const (
	roleInit   = "init"
	roleRunner = "runner"
)

// eventDevice is the machine's second serial line.
const eventDevice = "/dev/ttyS1"

// guest plays a role, and reports whether it has one. Both end all processes, so
// they make sure that they are in a machine that this program has started.
func guest() bool {
	role := os.Getenv(envRole)
	if role == "" {
		return false
	}
	if role == roleInit && os.Getpid() == 1 {
		_ = os.Mkdir("/proc", 0o755)
		_ = unix.Mount("proc", "/proc", "proc", 0, "") // shows in the next call
	}
	cmdline, _ := os.ReadFile("/proc/cmdline")
	ours := strings.Contains(string(cmdline), envRole+"="+roleInit)
	switch {
	case ours && role == roleInit && os.Getpid() == 1:
		powerOff(initMain())
	case ours && role == roleRunner && os.Getppid() == 1:
		if err := runnerMain(); err != nil {
			fmt.Fprintln(os.Stderr, "kernels: runner:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintf(os.Stderr, "kernels: %s=%s is for the first process of an emulated machine\n", envRole, role)
		os.Exit(2)
	}
	return true
}

// initMain starts the runner and, as the parent of orphans, waits for whatever
// ends.
func initMain() error {
	for _, m := range []struct{ source, target, fstype, data string }{
		{"sysfs", "/sys", "sysfs", ""},
		{"devtmpfs", "/dev", "devtmpfs", ""},
		{"devpts", "/dev/pts", "devpts", ""},
		{"tmpfs", "/dev/shm", "tmpfs", ""},
		{"tmpfs", "/tmp", "tmpfs", "mode=1777"},
		{"tmpfs", "/run", "tmpfs", "mode=755"},
		{"cgroup2", "/sys/fs/cgroup", "cgroup2", ""},
		{"bpf", "/sys/fs/bpf", "bpf", ""},
	} {
		_ = os.MkdirAll(m.target, 0o755) // the mount says why
		if err := unix.Mount(m.source, m.target, m.fstype, 0, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
			fmt.Fprintf(os.Stderr, "kernels: mount %s: %v\n", m.target, err)
		}
	}
	// A kernel's own limit is less than a test of many sockets takes.
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1 << 10, Max: 1 << 16}); err != nil {
		fmt.Fprintln(os.Stderr, "kernels: setrlimit:", err)
	}
	for name, target := range map[string]string{"fd": "fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"} {
		_ = os.Symlink("/proc/self/"+target, "/dev/"+name) // some kernels have them
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{envRole + "=" + roleRunner, "PATH=/bin", "HOME=/root", "TMPDIR=/tmp"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, 0, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return os.NewSyscallError("wait4", err)
		}
		if pid == cmd.Process.Pid {
			if status != 0 {
				return fmt.Errorf("the runner has ended with %#x", uint32(status))
			}
			return nil
		}
	}
}

func powerOff(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "kernels: init:", err)
	}
	err = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	fmt.Fprintln(os.Stderr, "kernels: power off:", err)
	os.Exit(1) // which is a panic of the kernel, and ends QEMU as well
}

// teller sends events.
type teller struct{ e *json.Encoder }

func (t teller) tell(e event) error { return t.e.Encode(e) }

// runnerMain carries out the plan.
func runnerMain() error {
	line, err := openRaw(eventDevice)
	if err != nil {
		return err
	}
	t := teller{json.NewEncoder(line)}
	err = carryOut(t)
	e := event{Kind: eventEnd}
	if err != nil {
		e.Text = err.Error()
	}
	err = errors.Join(err, t.tell(e))
	// The kernel sends the rest before it says so (tcdrain(3)).
	if rc, rerr := line.SyscallConn(); rerr == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.IoctlSetInt(int(fd), unix.TCSBRK, 1) })
	}
	return err
}

// openRaw opens a serial line that changes nothing of what is written.
func openRaw(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	tio, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err == nil {
		tio.Iflag, tio.Oflag, tio.Lflag = 0, 0, 0
		err = unix.IoctlSetTermios(fd, unix.TCSETS, tio)
	}
	if err != nil {
		_ = unix.Close(fd) // nothing was written
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}

func carryOut(t teller) error {
	var p plan
	b, err := os.ReadFile(planFile)
	if err == nil {
		err = json.Unmarshal(b, &p)
	}
	if err != nil {
		return err
	}
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return os.NewSyscallError("uname", err)
	}
	if err := t.tell(event{Kind: eventBoot, Text: unix.ByteSliceToString(uts.Release[:])}); err != nil {
		return err
	}
	for _, path := range p.Modules {
		if err := loadModule(path); err != nil {
			if err := t.tell(event{Kind: eventModule, Text: fmt.Sprintf("%s: %v", filepath.Base(path), err)}); err != nil {
				return err
			}
		}
	}
	if out, err := exec.Command("/bin/busybox", "--install", "-s", "/bin").CombinedOutput(); err != nil {
		return fmt.Errorf("busybox --install: %w: %s", err, out)
	}
	if out, err := exec.Command("/bin/ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("ip link set lo up: %w: %s", err, out)
	}
	for _, r := range p.Runs {
		if err := carryOutRun(t, r); err != nil {
			return err
		}
	}
	return nil
}

func loadModule(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := unix.InitModule(b, ""); err != nil && !errors.Is(err, unix.EEXIST) {
		return os.NewSyscallError("init_module", err)
	}
	return nil
}

// carryOutRun runs one binary, and ends what it has left.
func carryOutRun(t teller, r run) error {
	if err := t.tell(event{Kind: eventStart, Package: r.Package}); err != nil {
		return err
	}
	out, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer out.Close()
	cmd := exec.Command(r.Path, r.Args...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = r.Dir, w, w
	cmd.Env = []string{"PATH=/bin", "HOME=/root", "TMPDIR=/tmp", "USER=root", "BATON_OWN_CLOCK=1"}
	start := time.Now()
	if err := errors.Join(cmd.Start(), w.Close()); err != nil {
		return t.tell(event{Kind: eventExit, Package: r.Package, Status: -1, Text: err.Error()})
	}
	read := make(chan error, 1)
	go func() { // ends with all who write to w
		b := make([]byte, 4096)
		for {
			n, err := out.Read(b)
			if n > 0 {
				if err := t.tell(event{Kind: eventOutput, Package: r.Package, Text: string(b[:n])}); err != nil {
					read <- err
					return
				}
			}
			if err != nil {
				read <- nil
				return
			}
		}
	}()
	err = cmd.Wait()
	_ = unix.Kill(-1, unix.SIGKILL) // all but init and this process; none is as good
	if err := <-read; err != nil {
		return err
	}
	e := event{Kind: eventExit, Package: r.Package, Status: cmd.ProcessState.ExitCode(), Seconds: time.Since(start).Seconds()}
	if err != nil {
		e.Text = err.Error()
	}
	return t.tell(e)
}
