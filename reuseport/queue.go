package reuseport

import "syscall"

// QueueLen returns how many connections wait in the accept queue of the
// listening socket c, and the limit of that queue. Connections whose handshake
// isn't complete are not among them; [HalfOpen] counts those. It borrows c for
// the call.
//
// On Linux the numbers of a TCP listener come from TCP_INFO (tcp(7); a listener
// reports its queue as tcpi_unacked and its backlog as tcpi_sacked), those of a
// unix listener from sock_diag(7), in the network namespace of the caller.
// Elsewhere, and for other sockets, the error matches [errors.ErrUnsupported];
// a socket that doesn't listen gives EINVAL.
func QueueLen(c syscall.Conn) (n, backlog int, err error) {
	return queueLen(c)
}

// HalfOpen returns the number of handshakes that the kernel has answered on the
// address of the TCP listener c and that are not complete: connections that
// can't be accepted yet, and that closing the socket would reset. It borrows c
// for the call.
//
// The kernel does not tell which of several listeners on one address a handshake belongs
// to, so in a SO_REUSEPORT group the number is that of all members. IPv4 clients of a
// dual-stack listener are counted. Handshakes in SYN cookies can't be counted: the kernel
// keeps no state of them.
//
// On Linux the number comes from the references that the kernel holds on the listeners of
// the address, in /proc/net/tcp, which takes the same time however many connections the
// machine has. (A listener that is in a BPF sockmap has one reference more, and counts
// one handshake too many.) For MPTCP listeners, and where that table doesn't work, the
// kernel lists the handshakes by sock_diag(7), for which it goes through all connections.
// Both count in the network namespace of the caller. Outside of Linux, and for sockets
// that are not TCP, the error matches [errors.ErrUnsupported].
func HalfOpen(c syscall.Conn) (n int, err error) {
	return halfOpen(c)
}
