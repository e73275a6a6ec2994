package diag

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Numbers of linux/sock_diag.h, linux/inet_diag.h and linux/unix_diag.h, which
// x/sys does not have.
const (
	sockDiagByFamily = 20

	reqLen = 56 // struct inet_diag_req_v2
	msgLen = 72 // struct inet_diag_msg

	attrBytecode = 1  // INET_DIAG_REQ_BYTECODE
	attrV6Only   = 11 // INET_DIAG_SKV6ONLY

	bcSrcCond = 7 // INET_DIAG_BC_S_COND

	unixShowRQLen = 0x10 // UDIAG_SHOW_RQLEN
	unixAttrRQLen = 4    // UNIX_DIAG_RQLEN
)

// Conn is a sock_diag socket. Its methods may be called from several
// goroutines.
type Conn struct {
	nl *netlink.Conn
}

// Dial opens a sock_diag socket, which the caller closes.
func Dial() (*Conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_SOCK_DIAG, nil)
	if err != nil {
		return nil, fmt.Errorf("open sock_diag socket: %w", err)
	}
	return &Conn{nl: nl}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return c.nl.Close() }

// HalfOpen returns the handshakes on q's port that the kernel has answered and
// that are not complete. The port may belong to several sockets.
//
// A request socket that becomes a connection stays in this list until the
// connection is in the accept queue: in the kernel the child takes the place of
// the request in one step, in state SYN_RECV, and leaves that state only after
// it was queued (tcp_check_req and tcp_child_process, net/ipv4). So a handshake
// that is no longer listed can be seen in the queue, or is over.
func (c *Conn) HalfOpen(q Query) ([]Tuple, error) {
	msgs, err := c.dump(q, 1<<StateSynRecv)
	if err != nil {
		return nil, fmt.Errorf("list half-open handshakes: %w", err)
	}
	tuples := make([]Tuple, 0, len(msgs))
	for _, m := range msgs {
		t, err := parseTuple(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list half-open handshakes: %w", err)
		}
		tuples = append(tuples, t)
	}
	return tuples, nil
}

// Listeners returns the sockets on q's port that take part in the choice of a
// socket for new traffic: TCP listeners, UDP sockets.
func (c *Conn) Listeners(q Query) ([]Socket, error) {
	states := uint32(1 << StateListen)
	if q.Protocol == unix.IPPROTO_UDP {
		states = 1<<StateClose | 1<<StateEstablished
	}
	msgs, err := c.dump(q, states)
	if err != nil {
		return nil, fmt.Errorf("list sockets of port %d: %w", q.Port, err)
	}
	socks := make([]Socket, 0, len(msgs))
	for _, m := range msgs {
		s, err := parseSocket(m.Data)
		if err != nil {
			return nil, fmt.Errorf("list sockets of port %d: %w", q.Port, err)
		}
		socks = append(socks, s)
	}
	return socks, nil
}

// UnixQueue returns how many connections wait in the queue of the unix listener
// with this inode, and the limit of that queue.
func (c *Conn) UnixQueue(inode uint32) (n, backlog int, err error) {
	req := make([]byte, 24) // struct unix_diag_req
	req[0] = unix.AF_UNIX
	binary.NativeEndian.PutUint32(req[4:], 0xffffffff)
	binary.NativeEndian.PutUint32(req[8:], inode)
	binary.NativeEndian.PutUint32(req[12:], unixShowRQLen)
	binary.NativeEndian.PutUint64(req[16:], ^uint64(0)) // no cookie
	msgs, err := c.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request},
		Data:   req,
	})
	if err != nil {
		return 0, 0, fmt.Errorf("look up unix socket: %w", err)
	}
	if len(msgs) != 1 {
		return 0, 0, fmt.Errorf("look up unix socket: %d answers", len(msgs))
	}
	return parseUnixQueue(msgs[0].Data)
}

func parseUnixQueue(b []byte) (n, backlog int, err error) {
	if len(b) < 16 { // struct unix_diag_msg
		return 0, 0, fmt.Errorf("look up unix socket: answer of %d bytes, want at least 16", len(b))
	}
	ad, err := netlink.NewAttributeDecoder(b[16:])
	if err != nil {
		return 0, 0, fmt.Errorf("look up unix socket: %w", err)
	}
	for ad.Next() {
		if ad.Type() == unixAttrRQLen && len(ad.Bytes()) >= 8 {
			b := ad.Bytes()
			return int(binary.NativeEndian.Uint32(b)), int(binary.NativeEndian.Uint32(b[4:])), nil
		}
	}
	if err := ad.Err(); err != nil {
		return 0, 0, fmt.Errorf("look up unix socket: %w", err)
	}
	return 0, 0, fmt.Errorf("queue of a unix socket: %w", errors.ErrUnsupported)
}

// dump asks for all sockets of q in the states given as a bit set.
func (c *Conn) dump(q Query, states uint32) ([]netlink.Message, error) {
	data := request(q, states)
	binary.BigEndian.PutUint16(data[8:], q.Port)
	if q.Addr.IsValid() && !q.Addr.IsUnspecified() {
		ae := netlink.NewAttributeEncoder()
		ae.Bytes(attrBytecode, localAddrIs(q.Addr))
		attr, err := ae.Encode()
		if err != nil {
			return nil, err
		}
		data = append(data, attr...)
	}
	msgs, err := c.nl.Execute(netlink.Message{
		Header: netlink.Header{Type: sockDiagByFamily, Flags: netlink.Request | netlink.Dump},
		Data:   data,
	})
	if err != nil {
		return nil, err
	}
	return msgs, nil
}

// request returns a struct inet_diag_req_v2 without addresses.
func request(q Query, states uint32) []byte {
	req := make([]byte, reqLen)
	req[0] = q.Family
	req[1] = q.Protocol
	binary.NativeEndian.PutUint32(req[4:], states)
	binary.NativeEndian.PutUint64(req[48:], ^uint64(0)) // INET_DIAG_NOCOOKIE
	return req
}

// localAddrIs returns the bytecode for "the local address is addr": one
// condition that on a mismatch jumps 4 bytes past the end, which is the kernel's
// form of "no" (inet_diag_bc_run).
func localAddrIs(addr netip.Addr) []byte {
	ip := addr.AsSlice()
	total := 4 + 8 + len(ip)
	bc := make([]byte, 0, total)
	bc = append(bc, bcSrcCond, byte(total))
	bc = binary.NativeEndian.AppendUint16(bc, uint16(total+4))
	family := byte(unix.AF_INET6)
	if addr.Is4() {
		family = unix.AF_INET
	}
	bc = append(bc, family, byte(addr.BitLen()), 0, 0)
	bc = binary.NativeEndian.AppendUint32(bc, ^uint32(0)) // any port
	return append(bc, ip...)
}

func parseTuple(b []byte) (Tuple, error) {
	if len(b) < msgLen {
		return Tuple{}, fmt.Errorf("sock_diag answer of %d bytes, want at least %d", len(b), msgLen)
	}
	addr := func(at []byte) netip.Addr {
		if b[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(at[:4]))
		}
		return netip.AddrFrom16([16]byte(at[:16])).Unmap()
	}
	return Tuple{
		Local:  netip.AddrPortFrom(addr(b[8:]), binary.BigEndian.Uint16(b[4:])),
		Remote: netip.AddrPortFrom(addr(b[24:]), binary.BigEndian.Uint16(b[6:])),
	}, nil
}

func parseSocket(b []byte) (Socket, error) {
	t, err := parseTuple(b)
	if err != nil {
		return Socket{}, err
	}
	s := Socket{
		Local:   t.Local,
		Family:  b[0],
		Ifindex: binary.NativeEndian.Uint32(b[40:]),
		UID:     binary.NativeEndian.Uint32(b[64:]),
		Inode:   binary.NativeEndian.Uint32(b[68:]),
	}
	ad, err := netlink.NewAttributeDecoder(b[msgLen:])
	if err != nil {
		return Socket{}, fmt.Errorf("sock_diag attributes: %w", err)
	}
	for ad.Next() {
		if v := ad.Bytes(); ad.Type() == attrV6Only {
			s.V6Only = len(v) > 0 && v[0] != 0
		}
	}
	if err := ad.Err(); err != nil {
		return Socket{}, fmt.Errorf("sock_diag attributes: %w", err)
	}
	return s, nil
}
