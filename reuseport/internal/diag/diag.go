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
	Local   netip.AddrPort
	Inode   uint32 // as in st_ino of fstat(2)
	UID     uint32 // owner
	Ifindex uint32 // interface it is bound to; 0 means any
	Family  uint8
	V6Only  bool
}

// States of a socket (include/net/tcp_states.h).
const (
	StateEstablished = 1
	StateSynSent     = 2
	StateSynRecv     = 3
	StateClose       = 7 // of a UDP socket: it has no peer
	StateListen      = 10
)
