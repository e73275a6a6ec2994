package reuseport

import "syscall"

// StopQueueing makes the kernel ignore new connections to the TCP listener c,
// without touching those that are queued or half-open: Accept returns them one
// by one, and none is added. A client that connects meanwhile is not refused; it
// repeats its SYN, first after a second, and gets through when
// [ResumeQueueing] was called or another listener has the port. It borrows c
// for the call, and works for a lone listener, SO_REUSEPORT or not. In a group
// the kernel still chooses the listener, and its share of the clients waits, so
// there Drain is the better way.
//
// It needs CAP_NET_ADMIN in the network namespace; without, the error matches
// [io/fs.ErrPermission]. On MPTCP listeners, and outside of Linux, it matches
// [errors.ErrUnsupported]. On a listener that has another socket filter the
// error matches [io/fs.ErrExist].
//
// The filter lives on the socket, so on every duplicate of its descriptor in
// whatever process, until ResumeQueueing or the last close.
func StopQueueing(c syscall.Conn) error { return stopQueueing(c) }

// ResumeQueueing takes back what [StopQueueing] did. On a listener that is not
// stopped it does nothing. It takes any socket filter off and needs no privilege.
func ResumeQueueing(c syscall.Conn) error { return resumeQueueing(c) }
