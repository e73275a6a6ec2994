// Package reuseport listens with SO_REUSEPORT and leaves a group without losing a
// connection.
//
// Several sockets, of one process or of many, can share an address, and the kernel
// spreads the connections over them: one listener for each core, or one for each instance
// of a service. A connection that the kernel has given to a socket ends with that socket:
// a plain Close resets every connection in the socket's queue and every handshake that is
// under way. shutdown(2) does the same or nothing, and no option makes a member stop
// queuing. [Listener.Drain] loses nothing: it steers new connections to other members,
// waits until no connection is left in the queue or in a handshake, and closes.
//
// [net/http.Server.Shutdown] right after Drain still fails requests: it drops connections
// that it has just accepted, and closes idle connections on which a request is on its
// way. The server of package handoffhttp does neither, and drains its listeners itself.
// This program leaves at SIGTERM while other members serve on:
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
// ends its connections by the rules of its protocol.
//
// A [Group] is several members of one process, as listeners or merged into one,
// with members that come and go. [Steering] decides which member gets new
// connections. [PacketConn] and [PacketGroup] are the same for UDP. [QueueLen],
// [HalfOpen] and [StopQueueing] work on any listener.
//
// [Move] is for a process that has inherited the listeners of another one: it replaces
// them by its own without loss.
//
// # Other processes
//
// In the kernel, a group has the members of all processes of one effective user on the
// address, and one steering program. Processes that use this package take turns to change
// the group. They hold the group lock meanwhile: an abstract unix socket in the network
// namespace, with the port in its name, which ends with the process. A program names
// members by their place in the group, and places change when members leave. If a member
// closes without the lock, the process that drains a member notices it and makes a new
// program; until then the leaving member serves the connections that it gets. If another
// member closes in the same microseconds as the leaving one, a connection can be lost,
// and the report says so.
//
// To find the place of each member, a process sends packets to its own address. Its own
// sockets drop these, so that no Accept and no read returns them. Other processes with
// members accept a few connections from an address of this machine that carry no data and
// are reset within a millisecond, or read a datagram.
//
// When a process is killed while a member leaves, the connections that it had accepted
// and those in its own queues are lost, and no others. Its steering program stays in the
// kernel. Then members that join later get nothing, and a member that was there may get
// nothing either, until a process steers the group or drains a member, which replaces the
// program. This package can't see whether a program was left behind or is wanted
// ([Weights], [CPU], an eBPF program), so it removes none by itself. A process that
// joins, and whose service wants no program, removes it by [ResetSteering], or by
// Group.Steer(ctx, Hash()), which waits for the lock.
//
// # Systems
//
// On Linux all functions work, and only StopQueueing needs a privilege. Before kernel 5.7
// a connection that arrives in the instant of a close can be lost, and the report says
// so. On FreeBSD (SO_REUSEPORT_LB), macOS and the other BSDs (SO_REUSEPORT), [Listen],
// [ListenPacket], [ListenGroup] and [Control] work; the other functions return errors
// that match [errors.ErrUnsupported]. On Windows and other systems all functions return
// such errors.
package reuseport
