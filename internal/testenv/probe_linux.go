package testenv

import (
	"context"
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func ipv6() error {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return err
	}
	return ln.Close()
}

func memfd() error {
	fd, err := unix.MemfdCreate("probe", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd) // nothing was written
	_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_WRITE)
	return os.NewSyscallError("fcntl(F_ADD_SEALS)", err)
}

func mptcp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_MPTCP)
	if err != nil {
		return os.NewSyscallError("socket(IPPROTO_MPTCP)", err)
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

func netns() error {
	// Not by unshare(2) on a thread: that could be the main one, which does not
	// end, and whose namespace is that of /proc/self/net.
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	return cmd.Run()
}

// pidfd takes a duplicate of its own descriptor, as an unrelated one would: a process
// may do that to itself wherever the two calls exist and no filter forbids them.
func pidfd() error {
	pid, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pid) // nothing was written
	fd, err := unix.PidfdGetfd(pid, pid, 0)
	if err != nil {
		return os.NewSyscallError("pidfd_getfd", err)
	}
	return os.NewSyscallError("close", unix.Close(fd))
}

func reuseportBPF() error {
	control := func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) {
			err = os.NewSyscallError("setsockopt(SO_REUSEPORT)",
				unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1))
		}); cerr != nil {
			return cerr
		}
		return err
	}
	lc := net.ListenConfig{Control: control}
	lc.SetMultipathTCP(false) // MPTCP refuses the program
	ln, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close() // no connection comes
	conn, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		return err
	}
	// return 0
	filter := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if cerr := conn.Control(func(fd uintptr) {
		err = os.NewSyscallError("setsockopt(SO_ATTACH_REUSEPORT_CBPF)",
			unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &prog))
	}); cerr != nil {
		return cerr
	}
	return err
}

// systemd looks for what it takes to boot one, and makes namespaces as that would.
func systemd() error {
	if err := root(); err != nil {
		return err
	}
	_, err := os.Stat("/lib/systemd/systemd")
	if errors.Is(err, os.ErrNotExist) {
		return errors.New("it is not installed: apt-get install systemd")
	}
	for _, name := range []string{"systemctl", "nsenter", "setpriv"} {
		if _, err := exec.LookPath(name); err != nil {
			return err
		}
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	if !strings.Contains(string(mounts), " cgroup2 ") {
		return errors.New("no cgroup2 hierarchy is mounted")
	}
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWCGROUP,
	}
	return cmd.Run()
}

func unsharePID() error {
	cmd := exec.Command("true")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID}
	return cmd.Run()
}
