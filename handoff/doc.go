// Package handoff replaces a running server with its next version without
// losing a connection: not one that is open, not one that waits in the kernel's
// queue, not one whose handshake is under way.
//
// A server opens its sockets through an [Upgrader]:
//
//	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
//	ln, err := up.Listen(ctx, "tcp", ":8080")
//	go serve(ln)
//	err = up.Ready()
//	<-up.Done()
//	err = up.Shutdown(ctx)
//
// SIGUSR2, or [Upgrader.Upgrade], starts the program anew: whatever is installed
// at its path by then. The new process, the successor, gets the same sockets and
// says Ready; the old one, its predecessor, stops accepting but keeps everything
// for a probation in which it takes over again by itself if the successor dies,
// hangs, fails its health check or refuses ([Upgrader.Abort]). Then the upgrade
// is committed, and the predecessor finishes its open connections. A successor
// that fails at any point until commit costs nothing.
//
// # Modes
//
// [Inherit] starts the successor through github.com/cloudflare/tableflip, whose
// environment protocol it keeps: a service on plain tableflip can be upgraded
// to it in place, and back. [Takeover] passes the sockets over a unix socket,
// also to a successor that somebody else has started: a new container on the
// same host, a new unit, a shell. A process can be replaced in one mode and
// replace its own successor in another.
//
// [Drain] is Takeover, after which the successor moves to sockets of its own beside
// the predecessor's and leaves those without loss, for services whose sockets have to
// be made by the process that serves.
//
// # What is not its business
//
// The package does not look into connections: what a protocol needs to end one
// without loss is the protocol's affair. It starts no process but the successor,
// supervises nobody, and never calls os.Exit.
//
// # Concurrency
//
// All methods may be called from several goroutines. Hooks say from which
// goroutine they are called; none is called with a lock held. Every goroutine
// and descriptor is gone when [Upgrader.Shutdown] returns.
//
// # Platforms
//
// It runs on Linux. Elsewhere it builds, and [New] returns an
// error that matches [ErrUnsupported].
package handoff
