// Package reuseport listens with SO_REUSEPORT and leaves a group without losing a
// connection.
//
// Several sockets, of one process or of many, can share an address, and the
// kernel spreads the connections over them: one listener for each core, or one
// for each instance of a service. What it has given to a socket goes with that
// socket. A plain Close resets every connection in its queue and every handshake
// that is under way; shutdown(2) does the same or nothing, and no option makes a
// member stop queuing. [Listener.Drain] does what is enough: it steers new
// connections to other members, waits until nothing that was under way is left,
// and closes.
//
// [net/http.Server.Shutdown] right behind Drain fails requests nevertheless: it drops what
// was accepted a moment before, and closes idle connections on which a request is on its
// way. Package handoffhttp has the server that does not, and drains its listeners itself. A
// whole program, which leaves at SIGTERM while other members serve on:
//
//	func main() {
//		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
//		defer stop()
//		ln, err := reuseport.Listen(ctx, "tcp", ":8080", nil)
//		if err != nil {
//			log.Fatal(err)
//		}
//		srv := &http.Server{Handler: http.FileServer(http.Dir("public"))}
//		if err := handoffhttp.Run(ctx, nil, srv, ln); err != nil { // until ctx ends
//			log.Fatal(err)
//		}
//	}
//
// A server of another protocol accepts from the listener until Drain returns, and then
// ends its connections as its protocol has it.
//
// A [Group] is several members of one process, as listeners or merged into one,
// with members that come and go. [Steering] decides which member gets new
// connections. [PacketConn] and [PacketGroup] are the same for UDP. [QueueLen],
// [HalfOpen] and [StopQueueing] work on any listener.
//
// [Move] is the other half of an upgrade by duplicates: a process that has inherited
// the listeners of another one leaves them in favour of its own.
//
// # Other processes
//
// A group of the kernel has the members of all processes on the address, of one
// effective user, and one steering program. Processes that use this package take
// turns with what changes it, by the group lock: an abstract unix socket in the
// network namespace that has the port in its name and ends with the process. A
// program names members by their place in the group, and places change when members
// leave. Members that close without the lock are noticed, and the program is
// made anew; what comes to a leaving member until then is served by it. A close in
// the same microseconds as that of the leaving member can lose something, and the
// report says so.
//
// To learn which place is whose, a process sends packets to its own address. Its own
// sockets drop these, so that none comes out of an Accept or a read. Other processes
// with members get some connections from an address of this machine that say nothing
// and are reset within a millisecond, or a datagram.
//
// When a process is killed while a member leaves, the connections that it had accepted
// and those in its own queues are lost, and no others. Its steering program stays in
// the kernel. Members that join later get nothing then, and neither may a member that
// was there, until a process of the group steers or drains a member, which replaces the
// program. The kernel does not tell whether a program was left behind or is wanted
// ([Weights], [CPU], an eBPF program), so this package removes none unasked. A process
// that knows removes it when it has joined, by [ResetSteering], or by
// Group.Steer(ctx, Hash()), which waits for the lock.
//
// # Systems
//
// All of it works on Linux, without privilege; before kernel 5.7 a connection that
// comes in the instant of a close can be lost, and the report says so. On FreeBSD
// (SO_REUSEPORT_LB), macOS and the other BSDs (SO_REUSEPORT) [Listen],
// [ListenPacket], [ListenGroup] and [Control] work, and the rest returns errors that
// match [errors.ErrUnsupported]. On Windows and elsewhere all functions do.
package reuseport
