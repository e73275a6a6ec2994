//go:build linux

package ebpf

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/reuseport"
)

// tryOut closes a listener with a connection in its queue, and looks whether the
// connection has moved to another listener.
func tryOut() (err error) {
	p, err := load()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, p.Close()) }()
	g, err := reuseport.ListenGroup(context.Background(), "tcp4", "127.0.0.1:0", &reuseport.Config{Members: 2})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	old, other := g.Members()[0], g.Members()[1]
	if err := p.Join(old); err != nil {
		return explain("attach the program", err)
	}
	c, err := net.Dial("tcp4", g.Addr().String())
	if err != nil {
		return err
	}
	defer c.Close()
	if n, _, err := reuseport.QueueLen(old); err != nil || n != 1 {
		return fmt.Errorf("the program chose another listener, or the kernel none of them: %w", errors.ErrUnsupported)
	}
	if err := p.Join(other); err != nil {
		return err
	}
	if err := p.Away(old); err != nil {
		return err
	}
	if err := old.Close(); err != nil {
		return err
	}
	if n, _, err := reuseport.QueueLen(other); err != nil || n != 1 {
		return fmt.Errorf("the kernel loads the program and moves nothing, which it does since 5.14: %w", errors.ErrUnsupported)
	}
	return nil
}

// explain adds what an error of bpf(2) means.
func explain(what string, err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %s: %w", what, refusal(), err)
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENOSYS), errors.Is(err, ebpf.ErrNotSupported):
		return fmt.Errorf("%s: %w: %w", what, errors.ErrUnsupported, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// refusal says why the kernel may have refused, and what to do.
func refusal() string {
	var data [2]unix.CapUserData // two words, capget(2)
	err := unix.Capget(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &data[0])
	has := func(bit uint) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	if err == nil && !has(unix.CAP_BPF) && !has(unix.CAP_SYS_ADMIN) {
		return "it needs CAP_BPF, which this process does not have (AmbientCapabilities= of systemd, setcap(8))"
	}
	return "it needs CAP_BPF, and what this process has is that of a user namespace, as in a rootless container;" +
		" or a seccomp filter or a security module forbids bpf(2)"
}

func inodeOf(c syscall.Conn) (inode uint64, err error) {
	err = control(c, func(fd int) error {
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			return os.NewSyscallError("fstat", err)
		}
		inode = st.Ino
		return nil
	})
	return inode, err
}

// control calls f with c's descriptor, which stays open meanwhile.
func control(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var ferr error
	if err := rc.Control(func(fd uintptr) { ferr = f(int(fd)) }); err != nil {
		return err
	}
	return ferr
}
