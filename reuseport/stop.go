package reuseport

import "syscall"

// StopQueueing makes the kernel ignore new connections to the TCP listener c, without
// touching those that are queued or half-open: Accept returns them one by one, and none
// is added. A client that connects meanwhile is not refused; it repeats its SYN, first
// after a second, and gets through when [ResumeQueueing] was called or another listener
// has the port. It borrows c for the call, and works for a lone listener, SO_REUSEPORT or
// not. In a group the kernel still chooses the stopped listener for its share of the
// clients, and these wait: use [Listener.Drain] there.
//
// It needs CAP_NET_ADMIN in the network namespace; without, the error matches
// [io/fs.ErrPermission]. On MPTCP listeners, and outside of Linux, it matches
// [errors.ErrUnsupported]. On a listener that has another socket filter the
// error matches [io/fs.ErrExist].
//
// The filter belongs to the socket. It stays for every duplicate of the descriptor, in
// each process, until [ResumeQueueing] or the last close.
func StopQueueing(c syscall.Conn) error { return stopQueueing(c) }

// ResumeQueueing ends the effect of [StopQueueing]. It removes any socket filter of the
// listener, and needs no privilege. On a listener without a filter it does nothing.
func ResumeQueueing(c syscall.Conn) error { return resumeQueueing(c) }
