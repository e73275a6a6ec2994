// Package flows keeps the flows of a UDP address with the process that has them, while
// processes replace each other.
//
// An address has a fixed number of sockets in one SO_REUSEPORT group, its lanes. The
// first process binds them, in order, and each process passes all of them on, so that no
// member joins or leaves and lane i is the group's index i for ever. A process reads one
// lane. A classic BPF program (SO_ATTACH_REUSEPORT_CBPF, socket(7)), which needs no
// privilege, chooses the lane of each datagram: that of the process that has the flow, or
// else the current one. To replace a process, and to undo that, is one setsockopt(2).
//
// The program knows a flow by an ID in the datagram that the server has chosen ([IDs]),
// or by the address and port of the client, for up to [MaxKept] flows, or fewer where the
// kernel takes shorter programs only.
//
// A [table], a file in memory that all processes share, has what the program is made of:
// the key of the IDs, the current lane, and for each lane the clients that are known by
// their address. A process has a lane while it holds a lock on the lane's byte in that
// file (F_OFD_SETLK, fcntl(2)): the kernel gives the lock back when the process ends, in
// whatever way, and another process sees that. The state of the address in that file
// changes by compare-and-swap: a process that was stopped changes nothing newer.
package flows
