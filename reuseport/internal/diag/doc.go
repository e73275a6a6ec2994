// Package diag asks the kernel about sockets over a sock_diag netlink socket
// (sock_diag(7)): half-open handshakes and listeners of one port, one
// connection by its addresses, the queue of a unix listener. The kernel does the
// filtering.
//
// No question here needs a privilege. Answers are about the network namespace
// that the calling thread was in at [Dial].
package diag
