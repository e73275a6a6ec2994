package sockets

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
)

// A PacketConn is a datagram socket that outlives its process. Its methods are
// those of [net.UDPConn], and fail on a unixgram socket where that has none.
type PacketConn struct {
	inner   atomic.Pointer[netPacketConn]
	gate    *gate
	closing func() error
	queue   queue[datagram]
	batch   atomic.Pointer[batch]

	// A goroutine that has read a datagram may be about to answer it: see answering.
	reading atomic.Int32 // reads under way
	readers atomic.Int32 // the most that there were at once
	turned  atomic.Int32 // reads that a shut gate has turned away
	got     atomic.Bool  // a read has returned a datagram

	mu       sync.Mutex
	settings map[string]func(netPacketConn) error // what the user has set
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

// A datagram is one that another socket has received.
type datagram struct {
	data, oob []byte
	flags     int // of recvmsg(2)
	from      netip.AddrPort
}

// copyTo is a read of d.
func (d *datagram) copyTo(p, oob []byte) (n, oobn, flags int) {
	n, oobn, flags = copy(p, d.data), copy(oob, d.oob), d.flags
	if n < len(d.data) {
		flags |= msgTrunc
	}
	return n, oobn, flags
}

// addr is the sender as net gives it.
func (d *datagram) addr() *net.UDPAddr {
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(d.from.Addr().Unmap(), d.from.Port()))
}

// netPacketConn is what *net.UDPConn and *net.UnixConn have in common.
type netPacketConn interface {
	net.PacketConn
	syscall.Conn
	SetReadBuffer(bytes int) error
	SetWriteBuffer(bytes int) error
}

// read runs one read inside of the gate, or calls queued with a datagram of the queue.
func (c *PacketConn) read(queued func(datagram), f func() error) error {
	c.enter()
	err := pass(c.gate, nil, &c.queue, queued, f)
	c.exit(err)
	return err
}

// ReadFrom reads one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) ReadFrom(p []byte) (n int, addr net.Addr, err error) {
	err = c.read(func(d datagram) {
		n, _, _ = d.copyTo(p, nil)
		addr, err = d.addr(), nil
	}, func() error {
		n, addr, err = (*c.inner.Load()).ReadFrom(p)
		return err
	})
	return n, addr, err
}

// ReadFromUDPAddrPort reads one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) ReadFromUDPAddrPort(p []byte) (n int, addr netip.AddrPort, err error) {
	if !c.isUDP() {
		return 0, addr, c.notUDP()
	}
	err = c.read(func(d datagram) {
		n, _, _ = d.copyTo(p, nil)
		addr, err = d.from, nil
	}, func() error {
		n, addr, err = c.udp().ReadFromUDPAddrPort(p)
		return err
	})
	return n, addr, err
}

// ReadMsgUDP reads one datagram with its control messages, as [net.UDPConn] describes it.
func (c *PacketConn) ReadMsgUDP(p, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	if !c.isUDP() {
		return 0, 0, 0, nil, c.notUDP()
	}
	err = c.read(func(d datagram) {
		n, oobn, flags = d.copyTo(p, oob)
		addr, err = d.addr(), nil
	}, func() error {
		n, oobn, flags, addr, err = c.udp().ReadMsgUDP(p, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

// WriteTo writes one datagram, as [net.PacketConn] describes it.
func (c *PacketConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	return c.write(func() (int, error) { return (*c.inner.Load()).WriteTo(p, addr) })
}

// WriteToUDPAddrPort writes one datagram, as [net.UDPConn] describes it.
func (c *PacketConn) WriteToUDPAddrPort(p []byte, addr netip.AddrPort) (int, error) {
	if !c.isUDP() {
		return 0, c.notUDP()
	}
	return c.write(func() (int, error) { return c.udp().WriteToUDPAddrPort(p, addr) })
}

// WriteMsgUDP writes one datagram with control messages, as [net.UDPConn] describes it.
func (c *PacketConn) WriteMsgUDP(p, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if !c.isUDP() {
		return 0, 0, c.notUDP()
	}
	n, err = c.write(func() (n int, err error) {
		n, oobn, err = c.udp().WriteMsgUDP(p, oob, addr)
		return n, err
	})
	return n, oobn, err
}

// Close closes the socket for good: it will not be handed to a successor.
func (c *PacketConn) Close() error { return c.closing() }

// LocalAddr returns the socket's address.
func (c *PacketConn) LocalAddr() net.Addr { return (*c.inner.Load()).LocalAddr() }

// SyscallConn gives access to the descriptor, which stays the PacketConn's.
// Reading through it goes round the pause.
func (c *PacketConn) SyscallConn() (syscall.RawConn, error) { return (*c.inner.Load()).SyscallConn() }

// SetDeadline sets the deadlines of reading and writing.
func (c *PacketConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline sets the time after which reading returns an error that
// matches [os.ErrDeadlineExceeded]. The zero time means no deadline.
func (c *PacketConn) SetReadDeadline(t time.Time) error { return c.gate.setDeadline(t) }

// SetWriteDeadline sets the deadline of writing.
func (c *PacketConn) SetWriteDeadline(t time.Time) error {
	return c.set("write deadline", func(pc netPacketConn) error { return pc.SetWriteDeadline(t) })
}

// SetReadBuffer sets SO_RCVBUF.
func (c *PacketConn) SetReadBuffer(bytes int) error {
	return c.set("SO_RCVBUF", func(pc netPacketConn) error { return pc.SetReadBuffer(bytes) })
}

// SetWriteBuffer sets SO_SNDBUF.
func (c *PacketConn) SetWriteBuffer(bytes int) error {
	return c.set("SO_SNDBUF", func(pc netPacketConn) error { return pc.SetWriteBuffer(bytes) })
}

// set sets something of the socket, and of one that takes its place.
func (c *PacketConn) set(what string, f func(netPacketConn) error) error {
	c.mu.Lock()
	if c.settings == nil {
		c.settings = make(map[string]func(netPacketConn) error)
	}
	c.settings[what] = f
	c.mu.Unlock()
	return f(*c.inner.Load())
}

// replace has calls go to h from now on. What set has set until then is set.
func (c *PacketConn) replace(h netPacketConn) {
	c.inner.Store(&h)
	c.mu.Lock()
	settings := maps.Clone(c.settings)
	c.mu.Unlock()
	for _, f := range settings {
		_ = f(h) // the caller of set had the error, if there is one
	}
}

// write writes to the socket, and again if it was replaced and closed meanwhile.
func (c *PacketConn) write(f func() (int, error)) (int, error) {
	for {
		inner := c.inner.Load()
		n, err := f()
		if !errors.Is(err, net.ErrClosed) || c.inner.Load() == inner {
			return n, err
		}
	}
}

func (c *PacketConn) isUDP() bool {
	_, ok := (*c.inner.Load()).(*net.UDPConn)
	return ok
}

// udp returns the socket, of which isUDP has said that it is one.
func (c *PacketConn) udp() *net.UDPConn { return (*c.inner.Load()).(*net.UDPConn) }

func (c *PacketConn) notUDP() error {
	return fmt.Errorf("%w: %s is no UDP socket", failure.Unsupported, c.LocalAddr().Network())
}
