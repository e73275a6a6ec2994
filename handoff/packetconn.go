package handoff

import (
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
)

// A PacketConn is a datagram socket that outlives its process. It is a
// [net.PacketConn] and a [syscall.Conn], and offers the methods of
// [net.UDPConn] and of [ipv4.PacketConn] that servers use; on a unixgram socket those
// return [ErrUnsupported].
//
// It is for protocols in which each datagram is a request of its own, such as DNS: the
// process that reads it answers it. For protocols with connections, such as QUIC and DTLS,
// it is the wrong one, because datagrams of the predecessor's connections come to the
// successor, from Ready on, and break them, also if the upgrade is then rolled back: use
// [Upgrader.ListenFlows].
//
// Reads wait until the program has called [Upgrader.Ready], and while a successor is in
// probation. After the commit they return an error that matches [net.ErrClosed]. Writes
// work until [Upgrader.Shutdown], so that the program can answer a datagram that it has
// read. Shutdown waits up to a second until each goroutine that has read a datagram reads
// again. A program that answers from other goroutines waits for them before it calls
// Shutdown.
type PacketConn struct{ inner *sockets.PacketConn }

// ReadFrom reads one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) { return c.inner.ReadFrom(p) }

// ReadFromUDPAddrPort reads one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) ReadFromUDPAddrPort(p []byte) (n int, addr netip.AddrPort, err error) {
	return c.inner.ReadFromUDPAddrPort(p)
}

// ReadMsgUDP reads one datagram with its control messages, as [net.UDPConn] describes it.
func (c *PacketConn) ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	return c.inner.ReadMsgUDP(p, oob)
}

// WriteTo writes one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.inner.WriteTo(p, addr)
}

// WriteToUDPAddrPort writes one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error) {
	return c.inner.WriteToUDPAddrPort(p, addr)
}

// WriteMsgUDP writes one datagram with control messages, as [net.UDPConn] describes it.
func (c *PacketConn) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	return c.inner.WriteMsgUDP(p, oob, addr)
}

// ReadBatch reads datagrams by one system call, as [ipv4.PacketConn] describes it. quic-go
// uses it.
func (c *PacketConn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	return c.inner.ReadBatch(ms, flags)
}

// WriteBatch writes datagrams by one system call, as [ipv4.PacketConn] describes it.
func (c *PacketConn) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	return c.inner.WriteBatch(ms, flags)
}

// Close closes the socket for good: no successor gets it.
func (c *PacketConn) Close() error { return c.inner.Close() }

// LocalAddr returns the socket's address.
func (c *PacketConn) LocalAddr() net.Addr { return c.inner.LocalAddr() }

// SyscallConn gives access to the descriptor, which stays the PacketConn's.
// Reads through it do not wait during a probation.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return c.inner.SyscallConn() }

// SetDeadline sets the deadlines of reading and writing.
func (c *PacketConn) SetDeadline(t time.Time) error { return c.inner.SetDeadline(t) }

// SetReadDeadline sets the time after which reading returns an error that
// matches [os.ErrDeadlineExceeded]. The zero time means no deadline.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.inner.SetReadDeadline(t) }

// SetWriteDeadline sets the deadline of writing.
func (c *PacketConn) SetWriteDeadline(t time.Time) error { return c.inner.SetWriteDeadline(t) }

// SetReadBuffer sets SO_RCVBUF.
func (c *PacketConn) SetReadBuffer(bytes int) error { return c.inner.SetReadBuffer(bytes) }

// SetWriteBuffer sets SO_SNDBUF.
func (c *PacketConn) SetWriteBuffer(bytes int) error { return c.inner.SetWriteBuffer(bytes) }
