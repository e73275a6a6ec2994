package sockets

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A PacketConn is a datagram socket that outlives its process. Its methods are
// those of [net.UDPConn], and fail on a unixgram socket where that has none.
type PacketConn struct {
	inner   netPacketConn
	udp     *net.UDPConn // nil for unixgram
	gate    *gate
	closing func() error
	queue   queue[Datagram]

	// Local is nil, or the address that inner gets when it is bound; Unbound says
	// that it is not bound yet.
	Local   net.Addr
	Unbound atomic.Bool

	// A goroutine that has read a datagram may be about to answer it: see answering.
	reading atomic.Int32 // reads under way
	readers atomic.Int32 // the most that there were at once
	turned  atomic.Int32 // reads that a shut gate has turned away
	got     atomic.Bool  // a read has returned a datagram
}

// answering reports whether a reader has not come back to a gate that is shut. One
// that is inside may have its datagram already.
func (c *PacketConn) answering() bool {
	return c.got.Load() && c.turned.Load() < c.readers.Load()
}

// enter counts a read that begins, and exit its end.
func (c *PacketConn) enter() {
	n := c.reading.Add(1)
	for most := c.readers.Load(); n > most && !c.readers.CompareAndSwap(most, n); {
		most = c.readers.Load()
	}
}

func (c *PacketConn) exit(err error) {
	switch {
	case err == nil && !c.got.Load():
		c.got.Store(true)
	case errors.Is(err, net.ErrClosed):
		c.turned.Add(1)
	}
	c.reading.Add(-1)
}

// A Datagram is one that another socket has received.
type Datagram struct {
	Data, OOB []byte
	Flags     int // of recvmsg(2)
	From      netip.AddrPort
}

// copyTo is a read of d.
func (d *Datagram) copyTo(p, oob []byte) (n, oobn, flags int) {
	n, oobn, flags = copy(p, d.Data), copy(oob, d.OOB), d.Flags
	if n < len(d.Data) {
		flags |= msgTrunc
	}
	return n, oobn, flags
}

// addr is the sender as net gives it.
func (d *Datagram) addr() *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.From.Addr().Unmap(), d.From.Port()))
}

// Offer has a read return d. It reports false if stop is closed before one takes it.
func (c *PacketConn) Offer(d Datagram, stop <-chan struct{}) bool { return c.queue.push(d, stop) }

// netPacketConn is what *net.UDPConn and *net.UnixConn have in common.
type netPacketConn interface {
	net.PacketConn
	syscall.Conn
}

// read runs one read inside of the gate, or calls offered with a datagram of Offer.
func (c *PacketConn) read(offered func(Datagram), f func() error) error {
	c.enter()
	err := pass(c.gate, &c.queue, offered, f)
	c.exit(err)
	return err
}

// ReadFrom reads one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	err = c.read(func(d Datagram) {
		n, _, _ = d.copyTo(p, nil)
		addr, err = d.addr(), nil
	}, func() error {
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
	err = c.read(func(d Datagram) {
		n, _, _ = d.copyTo(p, nil)
		addr, err = d.From, nil
	}, func() error {
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
	err = c.read(func(d Datagram) {
		n, oobn, flags = d.copyTo(p, oob)
		addr, err = d.addr(), nil
	}, func() error {
		n, oobn, flags, addr, err = c.udp.ReadMsgUDP(p, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

// WriteTo writes one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.inner.WriteTo(p, addr)
}

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
func (c *PacketConn) LocalAddr() net.Addr {
	if c.Local != nil {
		return c.Local
	}
	return c.inner.LocalAddr()
}

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
	return fmt.Errorf("%w: %s is no UDP socket", failure.Unsupported, c.LocalAddr().Network())
}
