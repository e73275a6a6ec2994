// Package rebind is the second half of mode Drain: a process that has taken over
// its predecessor's TCP and UDP sockets moves to sockets of its own, in the same
// SO_REUSEPORT groups, and leaves those of the predecessor without a loss.
//
// Up to the commit, mode Drain is mode Takeover: both processes have the same
// sockets, no program steers the group, and no socket of the successor is in it.
// So a death or a rollback leaves nothing to be undone. What follows, for each
// address:
//
//  1. At Listen the successor makes its own socket: TCP is bound and does not
//     listen, so the kernel gives it nothing; UDP is made, and is bound in step 3,
//     for it joins the group by that. A successor that would not be in the
//     predecessor's group (another user, network namespace, device or protocol, or
//     no SO_REUSEPORT) fails here, before Ready. See [Reserve].
//  2. After the commit the successor serves the shared socket on until no other
//     process has a duplicate of it: the predecessor has said Released or has
//     ended (its pidfd says so), and so have the processes that it has named. A
//     predecessor that is stopped before that makes nothing listen and hides
//     nothing. See [Mover.Hold].
//  3. The own socket listens, or is bound. Accept and reads return what either
//     gets; what the old one gets reaches them through a queue
//     ([sockets.Leaving]). If it can't listen, the process serves the shared socket
//     on and says so.
//  4. reuseport.Move steers new connections to the own sockets, waits until no
//     handshake and no connection (or datagram) is left in an old one, and closes
//     it. It has the group for a turn of about ten seconds, and tries again after
//     its neighbours had theirs; nothing is closed that is not empty.
//
// A process that gets a successor of its own while it moves ends the move, steers
// by the kernel's hash, and passes all its sockets on, old and new
// ([Mover.Suspend]): its successor serves them all, and moves with them.
//
// A process that is killed in the move loses what any server loses that is killed:
// the predecessor has kept no duplicates. The steering program that it leaves
// behind is taken off by the next process of any line on the address.
package rebind
