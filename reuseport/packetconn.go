package reuseport

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"time"
)

// PacketConn is a UDP socket that is a member of a SO_REUSEPORT group. Its
// methods may be called from any goroutine. Those that read and write are those
// of [net.UDPConn].
type PacketConn struct {
	group *PacketGroup
	sock  *socket
	udp   *net.UDPConn
	reads readBarrier
}

// ListenPacket returns a UDP socket on address that is in the SO_REUSEPORT group
// of that address. network is udp, udp4 or udp6. The kernel gives the datagrams
// of one flow, that is of one pair of addresses and ports, to one member, as
// long as none joins or leaves. ctx bounds the resolution of address. The caller
// closes the socket, with Drain or Close.
//
// An address whose sockets can't be joined gives [ErrForeign].
func ListenPacket(ctx context.Context, network, address string, cfg *Config) (*PacketConn, error) {
	g, err := newPacketGroup(network, address, cfg)
	if err != nil {
		return nil, err
	}
	return g.Add(ctx)
}

// receive runs one read.
func (p *PacketConn) receive(read func() error) error {
	err := p.reads.run(func() error {
		p.sock.group.signal() // the reader is back
		return read()
	})
	switch {
	case err == nil:
		p.sock.count.Add(1)
		p.sock.group.signal()
	case errors.Is(err, net.ErrClosed):
		return ErrClosed
	}
	return err
}

// ReadFrom reads a datagram. It fails with [ErrClosed] once the socket is closed or
// drained. Drain waits until no datagram is unread, so call ReadFrom until it fails.
func (p *PacketConn) ReadFrom(b []byte) (int, net.Addr, error) {
	var n int
	var addr net.Addr
	err := p.receive(func() (err error) {
		n, addr, err = p.udp.ReadFrom(b)
		return err
	})
	return n, addr, err
}

// ReadFromUDPAddrPort is ReadFrom without an allocation.
func (p *PacketConn) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	var n int
	var addr netip.AddrPort
	err := p.receive(func() (err error) {
		n, addr, err = p.udp.ReadFromUDPAddrPort(b)
		return err
	})
	return n, addr, err
}

// ReadMsgUDPAddrPort is that of [net.UDPConn].
func (p *PacketConn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	err = p.receive(func() (err error) {
		n, oobn, flags, addr, err = p.udp.ReadMsgUDPAddrPort(b, oob)
		return err
	})
	return n, oobn, flags, addr, err
}

// WriteTo sends a datagram from the group's address.
func (p *PacketConn) WriteTo(b []byte, addr net.Addr) (int, error) { return p.udp.WriteTo(b, addr) }

// WriteToUDPAddrPort is WriteTo without an allocation.
func (p *PacketConn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return p.udp.WriteToUDPAddrPort(b, addr)
}

// WriteMsgUDPAddrPort is that of [net.UDPConn].
func (p *PacketConn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	return p.udp.WriteMsgUDPAddrPort(b, oob, addr)
}

// SyscallConn returns access to the descriptor, which stays p's own. From the call
// on, p counts as shared, as a [Listener] does: a datagram that comes in the
// instant of the close can be lost, and the report says so.
func (p *PacketConn) SyscallConn() (syscall.RawConn, error) {
	p.expose()
	return p.udp.SyscallConn()
}

func (p *PacketConn) expose() {
	p.sock.shared.Store(true)
	p.reads.bypassed.Store(true)
}

// Close leaves the group at once; unread datagrams are lost. Close unblocks
// reads. A second Close returns nil.
func (p *PacketConn) Close() error { return p.sock.group.closeMember(p.sock) }

// Drain leaves the group without losing a datagram: new ones go to the other members,
// those of this member's flows included; the program reads the queue until it is empty,
// and then Drain closes the socket. Goroutines that have read a datagram have a second to
// answer it; later answers have to go out from another member. A member that is alone
// closes when its queue is empty, and a datagram that arrives in that moment is lost.
//
// If ctx ends first, Drain closes the socket with the datagrams that are unread, and
// returns [ErrIncomplete]. On other systems than Linux, Drain closes the socket and
// returns an error that matches [errors.ErrUnsupported].
func (p *PacketConn) Drain(ctx context.Context) (Report, error) { return p.group.Remove(ctx, p) }

// LocalAddr returns the address that the socket is bound to.
func (p *PacketConn) LocalAddr() net.Addr { return p.udp.LocalAddr() }

// SetDeadline is that of [net.PacketConn], as are the next two.
func (p *PacketConn) SetDeadline(t time.Time) error {
	return errors.Join(p.SetReadDeadline(t), p.SetWriteDeadline(t))
}

// SetReadDeadline bounds reads.
func (p *PacketConn) SetReadDeadline(t time.Time) error { return p.reads.userDeadline(t) }

// SetWriteDeadline bounds writes.
func (p *PacketConn) SetWriteDeadline(t time.Time) error { return p.udp.SetWriteDeadline(t) }

func (p *PacketConn) member() *socket { return p.sock }
