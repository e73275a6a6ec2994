package sockets

import (
	"net"

	"golang.org/x/net/ipv4"
)

// A batch reads and writes several datagrams by one system call, on sockets of either
// family (quic-go uses ipv4.PacketConn so as well).
type batch struct {
	udp *net.UDPConn
	pc  *ipv4.PacketConn
}

// batches returns that of the socket as it is now.
func (c *PacketConn) batches() *ipv4.PacketConn {
	udp, b := c.udp(), c.batch.Load()
	if b == nil || b.udp != udp {
		b = &batch{udp, ipv4.NewPacketConn(udp)}
		c.batch.Store(b)
	}
	return b.pc
}

// ReadBatch reads datagrams into ms, as [ipv4.PacketConn] describes it.
func (c *PacketConn) ReadBatch(ms []ipv4.Message, flags int) (n int, err error) {
	if !c.isUDP() {
		return 0, c.notUDP()
	}
	if len(ms) == 0 {
		return 0, nil
	}
	err = c.read(func(d datagram) {
		n, err = d.scatter(&ms[0]), nil
	}, func() error {
		n, err = c.batches().ReadBatch(ms, flags)
		return err
	})
	return n, err
}

// scatter is a read of d into m. It returns the number of datagrams, 1.
func (d *datagram) scatter(m *ipv4.Message) int {
	rest := d.data
	m.N = 0
	for _, b := range m.Buffers {
		n := copy(b, rest)
		m.N, rest = m.N+n, rest[n:]
	}
	m.NN, m.Flags, m.Addr = copy(m.OOB, d.oob), d.flags, d.addr()
	if len(rest) > 0 {
		m.Flags |= msgTrunc
	}
	return 1
}

// WriteBatch writes datagrams, as [ipv4.PacketConn] describes it.
func (c *PacketConn) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	if !c.isUDP() {
		return 0, c.notUDP()
	}
	return c.write(func() (int, error) { return c.batches().WriteBatch(ms, flags) })
}
