package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/procs"
)

// ExecArg is the first argument of a process that must call [Exec].
const ExecArg = "__exec"

// firstFD is SD_LISTEN_FDS_START of sd_listen_fds(3).
const firstFD = 3

// Exec is what a child does between fork and exec: it learns its process ID, which
// LISTEN_PID must be, and becomes the app. Go can run no code of its own between fork
// and exec, so this costs one more exec. args are the arguments after ExecArg: the
// descriptor to report a failed exec's errno on, our parent's process ID, the signal to
// get when the parent ends, the program's path, its name and its arguments. Exec
// returns only if the exec fails, with the exit status.
func Exec(args []string) int {
	var numbers [3]int
	if len(args) < len(numbers)+2 {
		fmt.Fprintln(os.Stderr, "baton: "+ExecArg+" is for baton run alone")
		return 2
	}
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.Atoi(args[i]); err != nil {
			return 2
		}
	}
	report, parent, sig := numbers[0], numbers[1], numbers[2]
	unix.CloseOnExec(report)     // the parent reads end of file: the exec succeeded
	unix.CloseOnExec(report + 1) // the program, for when its path has another one now
	// The parent-death signal belongs to the thread that calls execve.
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(sig), 0, 0, 0); err != nil || os.Getppid() != parent {
		return 127 // the parent has ended already
	}
	env := withoutEnv(os.Environ(), "LISTEN_PID")
	if report > firstFD { // there are sockets
		env = append(env, "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	}
	err := syscall.Exec(args[len(numbers)], args[len(numbers)+1:], env)
	var errno syscall.Errno
	errors.As(err, &errno)
	_, _ = unix.Write(report, binary.NativeEndian.AppendUint32(nil, uint32(errno))) // without it the parent has the exit status alone
	return 127
}

// spawn starts the app with the sockets as g, and waits until it is executed. Its
// process ID is also that of its process group. wanted is the argument of find. The
// calling goroutine's thread must live for as long as the app should: when that thread
// ends, the kernel sends the app the stop signal (PR_SET_PDEATHSIG(2const)).
func (s *Supervisor) spawn(g *generation, wanted bool) error {
	s.keepNotifySocket()
	path, p, kept, err := s.find(wanted)
	if err != nil {
		return explainStart(s.cfg.Args[0], err)
	}
	g.program = p
	if !kept && s.coming == nil {
		s.asked = false // this start uses the program that is at the path now
	}
	var report [2]int
	if err := unix.Pipe2(report[:], unix.O_CLOEXEC); err != nil {
		return explainStart(path, os.NewSyscallError("pipe2", err))
	}
	defer fdx.Close(report[0])
	files := []uintptr{0, 1, 2}
	for _, fd := range s.sockets.fds {
		files = append(files, uintptr(fd))
	}
	argv := []string{"baton", ExecArg, strconv.Itoa(len(files)), strconv.Itoa(os.Getpid()), strconv.Itoa(int(s.stopSignal)), path}
	files = append(files, uintptr(report[1]))
	if kept {
		s.log.Warn("starting the previous program: the one at the app's path is missing or was never ready", "generation", g.number, "app", s.cfg.Args[0])
		argv[len(argv)-1] = "/proc/self/fd/" + strconv.Itoa(len(files))
		files = append(files, uintptr(p.fd))
	}
	// The program that runs, even when its file was replaced since.
	pid, _, err := syscall.StartProcess("/proc/self/exe", append(argv, s.cfg.Args...), &syscall.ProcAttr{
		Env: s.environment(g.number), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	_ = fdx.Close(report[1])
	if err != nil {
		return explainStart(path, err)
	}
	var buf [4]byte
	n, err := readFull(report[0], buf[:])
	if err == nil && n == 0 {
		g.pid, g.pgid = pid, pid
		return nil
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &status, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if n < len(buf) {
		return explainStart(path, fmt.Errorf("ended before it was executed: %s", statusText(status)))
	}
	return explainStart(path, os.NewSyscallError("execve", syscall.Errno(binary.NativeEndian.Uint32(buf[:]))))
}

// readFull reads until buf is full or at its end.
func readFull(fd int, buf []byte) (int, error) {
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return n, os.NewSyscallError("read", err)
		}
		n += m
	}
	return n, nil
}

// explainStart adds to an error what to do about it. The error matches ErrStart where
// another attempt would fail in the same way.
func explainStart(path string, err error) error {
	hint := ""
	switch {
	case errors.Is(err, exec.ErrNotFound), errors.Is(err, os.ErrNotExist):
		hint = "install it, or give its path"
	case errors.Is(err, os.ErrPermission):
		hint = "it is not executable for this user: chmod +x"
	case errors.Is(err, syscall.ENOEXEC):
		hint = "it is not built for this machine, or a script without #!"
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("start %s: it is being written: install a new version by rename, not by overwriting it: %w", path, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("start %s: no descriptors left: raise RLIMIT_NOFILE (ulimit -n): %w", path, err)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("start %s: no process left for this user: raise RLIMIT_NPROC or the pids limit of the container: %w", path, err)
	default:
		return fmt.Errorf("start %s: %w", path, err)
	}
	var ee *exec.Error
	if errors.As(err, &ee) {
		err = ee.Err // the outer error has the path too
	}
	return fmt.Errorf("%w: %s: %w: %s", ErrStart, path, err, hint)
}

// environment is the app's: ours without systemd's variables, plus ours for the app.
func (s *Supervisor) environment(generation int) []string {
	env := withoutEnv(os.Environ(), "LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES",
		"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "FDSTORE", procs.EnvSupervisor)
	env = append(env, "NOTIFY_SOCKET="+s.notify.address(), "BATON_GENERATION="+strconv.Itoa(generation), procs.EnvSupervisor+"="+procs.Supervisor())
	if n := len(s.sockets.fds); n > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_FDNAMES="+s.sockets.names())
	}
	return env
}

// withoutEnv returns an environment without some variables.
func withoutEnv(env []string, names ...string) []string {
	var rest []string
next:
	for _, kv := range env {
		for _, name := range names {
			if strings.HasPrefix(kv, name+"=") {
				continue next
			}
		}
		rest = append(rest, kv)
	}
	return rest
}

// statusText says how a process ended.
func statusText(w syscall.WaitStatus) string {
	switch {
	case w.Signaled() && w.CoreDump():
		return "killed by " + unix.SignalName(w.Signal()) + ", core dumped"
	case w.Signaled():
		return "killed by " + unix.SignalName(w.Signal())
	}
	return "exit status " + strconv.Itoa(w.ExitStatus())
}
