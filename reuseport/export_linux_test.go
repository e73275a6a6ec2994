package reuseport

import (
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Pending returns the look at one listener that Drain repeats, and its end.
func Pending(ln *net.TCPListener) (look func() (int, error), end func(), err error) {
	refs, err := openRefs(unix.AF_INET)
	if err != nil {
		return nil, nil, err
	}
	inode, err := inodeOfConn(ln)
	if err != nil {
		refs.close()
		return nil, nil, err
	}
	return func() (int, error) { return refs.pending(inode) }, refs.close, nil
}

// ListHalfOpen is HalfOpen by sock_diag.
func ListHalfOpen(ln *net.TCPListener) (n int, err error) {
	err = control(ln, func(fd int) error {
		q, err := queryOf(fd)
		if err != nil {
			return err
		}
		n, err = listHalfOpen(q)
		return err
	})
	return n, err
}

// ProbeReset returns what becomes of a probe whose connect(2) says that it was
// reset, by Accept or by somebody else.
func ProbeReset(byAccept bool) error {
	s := &shot{probe: new(probeSet).add(netip.AddrPort{})}
	if byAccept {
		s.landed <- new(socket)
	}
	_, err := s.connected(unix.ECONNRESET)
	return err
}

// Receive is a read that takes its time after it has its datagram.
func (p *PacketConn) Receive(read func() error) error { return p.receive(read) }

// Answering calls the readers together, and reports whether one is missing.
func (p *PacketConn) Answering() bool { return p.answering(true) }

// Dismiss lets them go on.
func (p *PacketConn) Dismiss() { p.roll.end() }
