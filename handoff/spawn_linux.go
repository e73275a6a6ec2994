package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// envConversation names the inherited descriptor of the conversation to a
// successor. New takes it out of the environment.
const envConversation = "BATON_HANDOFF"

// spawn starts the successor of modes Takeover and Drain. It returns our end of the
// conversation.
func (cfg *config) spawn(stderr *os.File) (*child, *net.UnixConn, error) {
	if err := cfg.checkExecutable(cfg.Executable); err != nil {
		return nil, nil, err
	}
	ours, theirs, err := conversationPair()
	if err != nil {
		return nil, nil, err
	}
	defer theirs.Close() // the child has its own
	cmd := exec.Command(cfg.Executable, cfg.Args...)
	cmd.Args[0] = cfg.arg0
	cmd.Dir = cfg.dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, stderr
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Env = append(withoutEnv(os.Environ(), envConversation), envConversation+"=3")
	if err := cmd.Start(); err != nil {
		_ = ours.Close() // nobody at the other end
		return nil, nil, cfg.explainStart(err)
	}
	c := newChild(func() { _ = cmd.Process.Kill() }) // an ended one does not mind
	c.pid = cmd.Process.Pid
	go func() { // ends with the process, for which finishChild or Shutdown waits
		c.exited <- cmd.Wait()
		close(c.done)
	}()
	return c, ours, nil
}

// checkExecutable turns the usual reasons for which a program can't be started
// into advice.
func (cfg *config) checkExecutable(path string) error {
	_, err := os.Stat(path)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist) && strings.Contains(path, string(os.PathSeparator)+"go-build"):
		return fmt.Errorf("%w: %s is gone: `go run` removes its binary when the process that it started ends: build with `go build` and start that: %w", ErrStart, path, err)
	case errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("%w: %s is gone: install the new version at that path, or set Config.Executable: %w", ErrStart, path, err)
	default:
		return fmt.Errorf("%w: %w", ErrStart, err)
	}
	if _, err := os.Stat(cfg.dir); err != nil {
		return fmt.Errorf("%w: the working directory that this process was started in can't be entered any more: %w", ErrStart, err)
	}
	return nil
}

// checkInherit is checkExecutable for what tableflip will start: os.Args[0],
// looked up again.
func (cfg *config) checkInherit() error {
	arg := os.Args[0]
	if !strings.Contains(arg, string(os.PathSeparator)) {
		if _, err := exec.LookPath(arg); err != nil {
			return fmt.Errorf("%w: %q was found in PATH when this process started, and is not now: %w", ErrStart, arg, err)
		}
		return nil
	}
	if !filepath.IsAbs(arg) {
		if wd, err := os.Getwd(); err != nil || wd != cfg.dir {
			return fmt.Errorf("%w: %w: %q is relative and the working directory has changed: start the program by its absolute path, or use mode Takeover", ErrUnsupported, ErrStart, arg)
		}
	}
	return cfg.checkExecutable(cfg.Executable)
}

func (cfg *config) explainStart(err error) error {
	switch {
	case errors.Is(err, syscall.ETXTBSY):
		return fmt.Errorf("%w: %s is being written: install a new version by rename, not by overwriting it: %w", ErrStart, cfg.Executable, err)
	case errors.Is(err, syscall.ENOEXEC):
		return fmt.Errorf("%w: %s is not built for this machine, or a script without #!: %w", ErrStart, cfg.Executable, err)
	case errors.Is(err, syscall.ENOENT): // it was there a moment ago
		return fmt.Errorf("%w: what %s names as its interpreter or loader is not there: %w", ErrStart, cfg.Executable, err)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%w: %s may not be executed: chmod +x it, and mount its file system without noexec: %w", ErrStart, cfg.Executable, err)
	case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
		return fmt.Errorf("%w: no descriptors left: raise RLIMIT_NOFILE (ulimit -n, LimitNOFILE=): %w", ErrStart, err)
	case errors.Is(err, syscall.EAGAIN):
		return fmt.Errorf("%w: no process left for this user: raise RLIMIT_NPROC (ulimit -u, TasksMax=): %w", ErrStart, err)
	}
	return fmt.Errorf("%w: %w", ErrStart, err)
}

// explainInherit is explainStart for what tableflip's Upgrade returns.
func (cfg *config) explainInherit(err error) error {
	if !strings.HasPrefix(err.Error(), "can't start child") {
		return err
	}
	return cfg.explainText(err)
}

// explainText is explainStart for an error of tableflip's: it wraps with %s, so the text
// is all there is.
func (cfg *config) explainText(err error) error {
	for _, errno := range []syscall.Errno{
		syscall.ETXTBSY, syscall.ENOEXEC, syscall.ENOENT, syscall.EACCES, syscall.EMFILE, syscall.ENFILE, syscall.EAGAIN,
	} {
		if strings.HasSuffix(err.Error(), errno.Error()) {
			return cfg.explainStart(errno)
		}
	}
	return fmt.Errorf("%w: %w", ErrStart, err)
}

// conversationPair returns two ends of a conversation: one for us, one to be
// inherited.
func conversationPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "conversation")
	ours, err := unixConn(fds[0])
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// inheritedConversation returns the conversation that our predecessor has
// given us at our start, or nil.
func inheritedConversation() (*net.UnixConn, error) {
	v := os.Getenv(envConversation)
	if v == "" {
		return nil, nil
	}
	// A process that we start has no part in this.
	if err := os.Unsetenv(envConversation); err != nil {
		return nil, err
	}
	fd, err := conversationFD(v)
	if err != nil {
		return nil, err
	}
	c, err := unixConn(fd)
	if err != nil {
		return nil, fmt.Errorf("conversation on descriptor %d (%s in the environment; was this process started by a wrapper that closes descriptors?): %w", fd, envConversation, err)
	}
	return c, nil
}

// conversationFD returns the descriptor that the environment names. The kernel
// looks at 32 bits of it: a larger number would be another descriptor.
func conversationFD(v string) (int, error) {
	fd, err := strconv.ParseInt(v, 10, 32)
	if err != nil || fd < 3 {
		return 0, fmt.Errorf("%w: %s=%q in the environment is no descriptor", ErrProtocol, envConversation, v)
	}
	return int(fd), nil
}

func withoutEnv(env []string, name string) []string {
	out := make([]string, 0, len(env)+1)
	for _, kv := range env {
		if !strings.HasPrefix(kv, name+"=") {
			out = append(out, kv)
		}
	}
	return out
}
