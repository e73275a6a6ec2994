// Package handoff replaces a running server with its next version without
// losing a connection: not one that is open, not one that waits in the kernel's
// queue, not one whose handshake is under way.
//
// A server opens its sockets through an [Upgrader]:
//
//	up, err := handoff.New(&handoff.Config{Name: "api"})
//	ln, err := up.Listen(ctx, "tcp", ":8080")
//	go serve(ln)
//	err = up.Ready()
//	<-up.Done()
//	err = up.Shutdown(ctx)
//
// SIGUSR2, or [Upgrader.Upgrade], starts the program that is installed at the
// path of the running one by then. The new process is the successor: it gets the
// same sockets and calls Ready. The old process, its predecessor, stops accepting
// and keeps the sockets for a probation. It accepts again if the successor dies,
// hangs, fails its health check or refuses ([Upgrader.Abort]). After the probation
// the upgrade is committed, and the predecessor serves its open connections to their
// end. A successor that fails before the commit costs no connection.
//
// # Modes
//
// [Inherit] starts the successor through github.com/cloudflare/tableflip, whose
// environment protocol it keeps: a service on plain tableflip can be upgraded
// to it in place, and back. [Takeover] passes the sockets over a unix socket,
// also to a successor that the predecessor has not started: one in a new container
// on the same host, in a new unit, from a shell. The mode can change with each
// upgrade.
//
// [Drain] is Takeover, after which the successor moves to sockets of its own beside
// the predecessor's and leaves those without loss, for services whose sockets have to
// be made by the process that serves.
//
// # Standard error
//
// Until the commit the standard error of a successor is a pipe, which its predecessor
// copies to its own: an upgrade that fails reports the last lines. The pipe is a
// terminal where the predecessor has one, and JOURNAL_STREAM (systemd.exec(5)) names it
// where the predecessor writes to systemd's journal, so that a program finds what it
// looks for at its start. A process that the successor starts before the commit keeps
// the pipe: it gets SIGPIPE if it writes after the successor has ended. Start such a
// process after [Upgrader.Ready] has returned and the first [EventOwner], or give it
// another standard error.
//
// # Non-goals
//
// The package does not look into connections: it is the protocol's part to end one
// without loss. It starts no process but the successor, supervises no process, and
// never calls os.Exit.
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
