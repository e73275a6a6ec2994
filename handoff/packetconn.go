package handoff

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"syscall"
	"time"
)

// A PacketConn is a datagram socket that outlives its process. It is a
// [net.PacketConn] and a [syscall.Conn], and offers the methods of
// [net.UDPConn] that servers use; on a unixgram socket those return
// [ErrUnsupported].
//
// Reading waits until [Upgrader.Ready] was called, waits while a successor is
// in probation, and returns an error that matches [net.ErrClosed] after
// commit. Writing goes on until [Upgrader.Shutdown], so that a datagram that
// was read can be answered.
type PacketConn struct {
	inner   netPacketConn
	udp     *net.UDPConn // nil for unixgram
	gate    *gate
	closing func() error
}

// netPacketConn is what *net.UDPConn and *net.UnixConn have in common.
type netPacketConn interface {
	net.PacketConn
	syscall.Conn
}

// read runs one read inside of the gate.
func (c *PacketConn) read(f func() error) error {
	for {
		if err := c.gate.enter(); err != nil {
			return &net.OpError{Op: "read", Net: c.LocalAddr().Network(), Addr: c.LocalAddr(), Err: err}
		}
		err := f()
		c.gate.exit()
		if err != nil && errors.Is(err, os.ErrDeadlineExceeded) && c.gate.again() {
			continue
		}
		return err
	}
}

// ReadFrom reads one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	err = c.read(func() error {
		n, addr, err = c.inner.ReadFrom(p)
		return err
	})
	return n, addr, err
}

// ReadFromUDPAddrPort reads one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) ReadFromUDPAddrPort(p []byte) (n int, addr netip.AddrPort, err error) {
	if c.udp == nil {
		return 0, addr, c.notUDP()
	}
	err = c.read(func() error {
		n, addr, err = c.udp.ReadFromUDPAddrPort(p)
		return err
	})
	return n, addr, err
}

// ReadMsgUDP reads one datagram with its control messages, as [net.UDPConn] describes it.
func (c *PacketConn) ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	if c.udp == nil {
		return 0, 0, 0, nil, c.notUDP()
	}
	err = c.read(func() error {
		n, oobn, flags, addr, err = c.udp.ReadMsgUDP(p, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

// WriteTo writes one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) { return c.inner.WriteTo(p, addr) }

// WriteToUDPAddrPort writes one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error) {
	if c.udp == nil {
		return 0, c.notUDP()
	}
	return c.udp.WriteToUDPAddrPort(p, addr)
}

// WriteMsgUDP writes one datagram with control messages, as [net.UDPConn] describes it.
func (c *PacketConn) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if c.udp == nil {
		return 0, 0, c.notUDP()
	}
	return c.udp.WriteMsgUDP(p, oob, addr)
}

// Close closes the socket for good: it will not be handed to a successor.
func (c *PacketConn) Close() error { return c.closing() }

// LocalAddr returns the socket's address.
func (c *PacketConn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// SyscallConn gives access to the descriptor, which stays the PacketConn's.
// Reading through it goes round the pause.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return c.inner.SyscallConn() }

// SetDeadline sets the deadlines of reading and writing.
func (c *PacketConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the time after which reading returns an error that
// matches [os.ErrDeadlineExceeded]. The zero time means no deadline.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.gate.setDeadline(t) }

// SetWriteDeadline sets the deadline of writing.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }

// SetReadBuffer sets SO_RCVBUF.
func (c *PacketConn) SetReadBuffer(bytes int) error {
	return c.inner.(interface{ SetReadBuffer(int) error }).SetReadBuffer(bytes)
}

// SetWriteBuffer sets SO_SNDBUF.
func (c *PacketConn) SetWriteBuffer(bytes int) error {
	return c.inner.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(bytes)
}

func (c *PacketConn) notUDP() error {
	return fmt.Errorf("%w: %s is no UDP socket", ErrUnsupported, c.LocalAddr().Network())
}
