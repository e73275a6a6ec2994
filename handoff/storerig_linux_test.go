package handoff_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// keeper is systemd with a descriptor store for a service, as service.c of systemd
// has it, with NotifyAccess=main.
type keeper struct {
	tb   testing.TB
	path string
	size int    // FileDescriptorStoreMax=
	says string // FDSTORE; empty: size

	mu      sync.Mutex
	main    int
	names   []string
	fds     []int
	changes int // of the store
	strange int // messages of others than the main process
	news    chan struct{}
}

func newKeeper(tb testing.TB, size int) *keeper {
	tb.Helper()
	k := &keeper{tb: tb, path: filepath.Join(testenv.ShortDir(tb), "notify"), size: size, news: make(chan struct{})}
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: k.path, Net: "unixgram"})
	if err != nil {
		tb.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	}
	if err != nil {
		tb.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.listen(c)
	}()
	tb.Cleanup(func() {
		_ = c.Close()
		<-done
		k.empty()
	})
	return k
}

func (k *keeper) listen(c *net.UnixConn) {
	buf, oob := make([]byte, 8192), make([]byte, 1024)
	for {
		n, oobn, _, _, err := c.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		var fds []int
		pid := 0
		all, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range all {
			if cred, err := unix.ParseUnixCredentials(&m); err == nil {
				pid = int(cred.Pid)
			}
			if got, err := unix.ParseUnixRights(&m); err == nil {
				fds = append(fds, got...)
			}
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
		}
		k.mu.Lock()
		_ = fdx.Close(k.heard(pid, strings.Split(string(buf[:n]), "\n"), fds)...)
		close(k.news)
		k.news = make(chan struct{})
		k.mu.Unlock()
	}
}

// heard takes a message in and returns the descriptors that are not kept.
func (k *keeper) heard(pid int, lines []string, fds []int) []int {
	value := func(name string) string {
		for _, l := range lines {
			if v, ok := strings.CutPrefix(l, name+"="); ok {
				return v
			}
		}
		return ""
	}
	if pid != k.main && value("BARRIER") == "" {
		k.strange++
		return fds
	}
	if main := value("MAINPID"); main != "" {
		k.main, _ = strconv.Atoi(main)
	}
	switch name := value("FDNAME"); {
	case value("FDSTOREREMOVE") == "1":
		for i := len(k.names) - 1; i >= 0; i-- {
			if k.names[i] == name {
				fds = append(fds, k.fds[i])
				k.names, k.fds = slices.Delete(k.names, i, i+1), slices.Delete(k.fds, i, i+1)
				k.changes++
			}
		}
	case value("FDSTORE") == "1":
		if len(name) > 255 || strings.Contains(name, ":") {
			k.tb.Errorf("systemd would not take the name %q", name)
		}
		return slices.DeleteFunc(fds, func(fd int) bool {
			if len(k.fds) >= k.size || slices.ContainsFunc(k.fds, func(o int) bool { return same(o, fd) }) {
				return false
			}
			k.names, k.fds = append(k.names, name), append(k.fds, fd)
			k.changes++
			return true
		})
	}
	return fds
}

// same compares open file descriptions, as systemd does (kcmp(2)).
func same(a, b int) bool {
	pid := uintptr(os.Getpid())
	r, _, errno := unix.Syscall6(unix.SYS_KCMP, pid, pid, 0, uintptr(a), uintptr(b), 0)
	return errno == 0 && r == 0
}

// empty closes what is in the store, as systemd does when the service has stopped
// for good.
func (k *keeper) empty() {
	k.mu.Lock()
	defer k.mu.Unlock()
	_ = fdx.Close(k.fds...)
	k.names, k.fds = nil, nil
}

// start starts a process of a service, with what is in the store.
func (k *keeper) start(s *service) *service {
	k.tb.Helper()
	k.launch(s)
	s.wait("owner")
	return s
}

func (k *keeper) launch(s *service) {
	k.tb.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	says := k.says
	if says == "" {
		says = strconv.Itoa(k.size)
	}
	cmd := s.command()
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+k.path, "FDSTORE="+says)
	if len(k.fds) > 0 {
		cmd.Args = []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, cmd.Path}
		cmd.Path = "/bin/sh"
		names := slices.Clone(k.names)
		slices.Reverse(names) // systemd has the last one first
		cmd.Env = append(cmd.Env, fmt.Sprint("LISTEN_FDS=", len(names)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
		for i := len(k.fds) - 1; i >= 0; i-- {
			fd, err := fdx.DupFD(k.fds[i])
			if err != nil {
				k.tb.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), k.names[i])
			defer f.Close() // the process has its own
			cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		}
	}
	s.startCommand(cmd)
	k.main = cmd.Process.Pid
}

// again starts the service anew: another process, the same settings.
func (k *keeper) again(s *service) *service {
	k.tb.Helper()
	return k.start(newService(k.tb, s.set))
}

// crash kills the main process and, as systemd does, what is left of the service,
// and waits until all is gone.
func (k *keeper) crash(s *service) {
	k.tb.Helper()
	k.mu.Lock()
	main := k.main
	k.mu.Unlock()
	if err := syscall.Kill(main, syscall.SIGKILL); err != nil {
		k.tb.Fatal(err)
	}
	s.line.Kill()
	s.gone(s.pidsHeard()...)
	closed(k.tb, controlOf(s))
}

// state returns the names in the store, sorted, and how often it has changed.
func (k *keeper) state() ([]string, int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	names := slices.Clone(k.names)
	slices.Sort(names)
	return names, k.changes
}

// has reports whether the store has one whose name has part in it.
func (k *keeper) has(part string) bool {
	names, _ := k.state()
	return slices.ContainsFunc(names, func(n string) bool { return strings.Contains(n, part) })
}

// awaitSize waits until n sockets are in the store.
func (k *keeper) awaitSize(n int) []string {
	k.tb.Helper()
	var names []string
	eventually(k.tb, fmt.Sprintf("%d in the store", n), func() bool {
		names, _ = k.state()
		return len(names) == n && !slices.Contains(names, "baton.probe")
	})
	return names
}

// stored waits until a process says that its store is up to date.
func stored(s *service) message {
	s.tb.Helper()
	return s.wait("stored")
}
