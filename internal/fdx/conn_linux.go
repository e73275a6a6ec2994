package fdx

import (
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Listener takes ownership of fd, a listening stream or seqpacket socket, and
// returns a listener on it. A unix listener made this way does not remove its
// path when it closes. The open file description, which other processes may
// share, stays non-blocking throughout; one that arrives blocking is made
// non-blocking. name appears in no error but those of this function.
//
// The options that a [net.ListenConfig] sets on accepted connections are not in
// the socket, so they are the caller's to restore.
func Listener(fd int, name string) (net.Listener, error) {
	f, err := file(fd, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	ln, err := net.FileListener(f)
	if err != nil {
		return nil, fmt.Errorf("listener from descriptor %q: %w", name, err)
	}
	return ln, nil
}

// PacketConn is [Listener] for a datagram socket.
func PacketConn(fd int, name string) (net.PacketConn, error) {
	f, err := file(fd, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("packet socket from descriptor %q: %w", name, err)
	}
	return pc, nil
}

// Conn is [Listener] for a connected socket. TCP_NODELAY and the keep-alive
// options of a TCP connection keep their values, although [net.FileConn] would
// set them to Go's defaults.
func Conn(fd int, name string) (net.Conn, error) {
	f, err := file(fd, name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var opts tcpOptions
	opts.read(fd)
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("connection from descriptor %q: %w", name, err)
	}
	if opts.n > 0 {
		goOptions.once.Do(func() { goOptions.read(fd) })
	}
	if err := opts.restore(fd); err != nil {
		_ = c.Close() // the restore error says more
		return nil, fmt.Errorf("connection from descriptor %q: %w", name, err)
	}
	return c, nil
}

// UnixConn is [Conn] for a unix stream socket.
func UnixConn(fd int, name string) (*net.UnixConn, error) {
	c, err := Conn(fd, name)
	if err != nil {
		return nil, err
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close() // the type says more
		return nil, fmt.Errorf("descriptor %q is a %T, not a unix socket", name, c)
	}
	return uc, nil
}

// SocketPair returns two connected unix stream sockets: one to use, and one to be given to
// another process.
func SocketPair(name string) (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), name)
	ours, err := UnixConn(fds[0], name)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// file takes ownership of fd. A file of [os.NewFile] leaves O_NONBLOCK alone,
// in Fd too, which the net.File functions call before they duplicate the
// descriptor and make it non-blocking; a file of (*net.TCPListener).File is
// another kind and clears the flag (os, newFileKind).
func file(fd int, name string) (*os.File, error) {
	f := os.NewFile(uintptr(fd), name)
	if f == nil {
		return nil, fmt.Errorf("descriptor %d %q: %w", fd, name, unix.EBADF)
	}
	return f, nil
}

// tcpOptions holds the options that net's newTCPConn sets on each connection:
// setNoDelay, and SetKeepAliveConfig with the default idle time.
type tcpOptions struct {
	values [len(tcpOptionNames)]int
	n      int // of values that are known; 0 for what isn't TCP
}

var tcpOptionNames = [...]struct {
	level, opt int
	name       string
}{
	{unix.IPPROTO_TCP, unix.TCP_NODELAY, "setsockopt(TCP_NODELAY)"},
	{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, "setsockopt(TCP_KEEPIDLE)"},
	{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, "setsockopt(TCP_KEEPINTVL)"},
	{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, "setsockopt(TCP_KEEPCNT)"},
	{unix.SOL_SOCKET, unix.SO_KEEPALIVE, "setsockopt(SO_KEEPALIVE)"},
}

func (o *tcpOptions) read(fd int) {
	for i, opt := range tcpOptionNames {
		v, err := unix.GetsockoptInt(fd, opt.level, opt.opt)
		if err != nil {
			return // a unix socket has no TCP option
		}
		o.values[i] = v
		o.n++
	}
}

// goOptions are the values that net has set, the same for each connection.
var goOptions struct {
	once sync.Once
	tcpOptions
}

func (o *tcpOptions) restore(fd int) error {
	for i, opt := range tcpOptionNames[:o.n] {
		if i < goOptions.n && o.values[i] == goOptions.values[i] {
			continue
		}
		if err := unix.SetsockoptInt(fd, opt.level, opt.opt, o.values[i]); err != nil {
			return os.NewSyscallError(opt.name, err)
		}
	}
	return nil
}
