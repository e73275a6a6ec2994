package diag

import "net/netip"

// Query selects sockets of one local port.
type Query struct {
	Family   uint8 // AF_INET or AF_INET6, the family of the listener
	Protocol uint8 // IPPROTO_TCP or IPPROTO_UDP
	Port     uint16

	// Addr limits the answer to this local address. The zero value and an
	// unspecified address mean any.
	Addr netip.Addr
}

// Tuple names a connection as its server sees it.
type Tuple struct {
	Local, Remote netip.AddrPort
}

// Socket is a socket bound to a port.
type Socket struct {
	Local    netip.AddrPort
	Inode    uint32 // as in st_ino of fstat(2)
	UID      uint32 // owner
	Ifindex  uint32 // interface it is bound to; 0 means any
	Family   uint8
	State    uint8 // as in enum tcp_state, such as StateListen
	V6Only   bool
	Queue    uint32 // TCP: connections that wait for accept; UDP: bytes unread
	Backlog  uint32 // TCP: limit of Queue
	Sockopts uint16 // struct inet_diag_sockopt, see the bits in this package
	// HasSockopts is false before kernel 5.13, where Sockopts isn't reported.
	HasSockopts bool
}

// States of a socket (include/net/tcp_states.h).
const (
	StateEstablished = 1
	StateSynRecv     = 3
	StateFinWait2    = 5
	StateTimeWait    = 6
	StateClose       = 7 // of a UDP socket: it has no peer
	StateListen      = 10
)

// Bits of [Socket.Sockopts] (linux/inet_diag.h, struct inet_diag_sockopt, in
// the order of its bit fields).
const (
	OptMulticastLoop = 1 << 4
	OptMulticastAll  = 1 << 6
	OptNoPortBind    = 1 << 8
)
