package supervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// sockets are bound for the app, and owned by the supervisor.
type sockets struct {
	all   []Socket // as configured
	fds   []int
	addrs []string
	paths []boundPath
}

// boundPath is the path of a unix socket that we have to remove.
type boundPath struct {
	path string
	info os.FileInfo
}

// bind binds sockets. An error matches ErrListen and says which.
func bind(all []Socket) (*sockets, error) {
	s := &sockets{all: all}
	for _, one := range all {
		if err := s.bind(one); err != nil {
			s.close()
			switch {
			case errors.Is(err, syscall.EADDRINUSE):
				err = fmt.Errorf("%w: end the process that has it, or choose another address", err)
			case errors.Is(err, syscall.EACCES):
				err = fmt.Errorf("%w: a port below 1024 needs root or CAP_NET_BIND_SERVICE, a path a folder that this user can write to", err)
			case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE):
				err = fmt.Errorf("%w: no descriptors left: raise RLIMIT_NOFILE (ulimit -n)", err)
			}
			return nil, fmt.Errorf("%w: %s: %w", ErrListen, one, err)
		}
	}
	return s, nil
}

// bind binds one socket. It never uses MPTCP: an app that knows no Baton may not know
// MPTCP either, and clients of plain TCP are served in both cases.
func (s *sockets) bind(one Socket) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	try := func() (c net.Addr, conn syscall.Conn, err error) {
		if strings.HasPrefix(one.Network, "udp") || one.Network == "unixgram" {
			pc, err := lc.ListenPacket(context.Background(), one.Network, one.Address)
			if err != nil {
				return nil, nil, err
			}
			if u, ok := pc.(*net.UnixConn); ok {
				return pc.LocalAddr(), u, nil
			}
			return pc.LocalAddr(), pc.(*net.UDPConn), nil
		}
		ln, err := lc.Listen(context.Background(), one.Network, one.Address)
		if err != nil {
			return nil, nil, err
		}
		if u, ok := ln.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false)
			return ln.Addr(), u, nil
		}
		return ln.Addr(), ln.(*net.TCPListener), nil
	}
	addr, conn, err := try()
	if err != nil && removeStale(one, err) {
		addr, conn, err = try()
	}
	if err != nil {
		return err
	}
	path := ""
	if u, ok := addr.(*net.UnixAddr); ok && !strings.HasPrefix(u.Name, "@") {
		path = u.Name
		if info, err := os.Lstat(path); err == nil {
			s.paths = append(s.paths, boundPath{path, info})
		}
	}
	// A descriptor outside Go's poller: only the app accepts.
	fd, err := fdx.Dup(conn)
	_ = conn.(interface{ Close() error }).Close() // the duplicate stays open; on an error there is nothing to lose
	if err != nil {
		return err
	}
	s.fds, s.addrs = append(s.fds, fd), append(s.addrs, addr.Network()+" "+addr.String())
	return nil
}

// removeStale removes the path of a unix socket that no process listens on any more.
func removeStale(one Socket, err error) bool {
	if !strings.HasPrefix(one.Network, "unix") || !errors.Is(err, syscall.EADDRINUSE) || one.Address[0] == '@' {
		return false
	}
	info, err := os.Lstat(one.Address)
	if err != nil || info.Mode()&os.ModeSocket == 0 {
		return false
	}
	c, err := net.DialUnix(one.Network, nil, &net.UnixAddr{Name: one.Address, Net: one.Network})
	if err == nil {
		_ = c.Close() // a process listens there
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(one.Address) == nil
}

// setNonblock sets or clears O_NONBLOCK. Most apps that know no Baton expect blocking
// sockets. nginx expects non-blocking ones: a worker that blocks in accept, because
// another worker was faster, handles no other event meanwhile. Every process that has
// the sockets shares the flag (fcntl(2), F_SETFL), so no process may use them at that
// time.
func (s *sockets) setNonblock(on bool) error {
	for _, fd := range s.fds {
		if err := unix.SetNonblock(fd, on); err != nil {
			return os.NewSyscallError("fcntl", err)
		}
	}
	return nil
}

// names is LISTEN_FDNAMES.
func (s *sockets) names() string {
	names := make([]string, len(s.all))
	for i, one := range s.all {
		names[i] = one.Name
	}
	return strings.Join(names, ":")
}

// close closes the sockets, and removes their paths if they are still ours.
func (s *sockets) close() {
	_ = fdx.Close(s.fds...) // no data to lose
	s.fds = nil
	for _, p := range s.paths {
		if info, err := os.Lstat(p.path); err == nil && os.SameFile(info, p.info) {
			_ = os.Remove(p.path) // another process may have removed it
		}
	}
	s.paths = nil
}
