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
// SIGUSR2, or [Upgrader.Upgrade], starts the program that is now at the path of the
// running one. The new process is the successor: it gets the same sockets and calls
// Ready. The old process, its predecessor, stops accepting, and keeps the sockets for a
// short time, the probation. It accepts again if the successor dies, hangs, fails its
// health check or refuses ([Upgrader.Abort]). At the end of the probation the predecessor
// commits the upgrade, and then lingers: it serves its open connections to their end. A
// successor that fails before the commit costs no connection.
//
// The first process and all successors that were committed are a line. The number of a
// process in its line is its generation.
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
// [Drain] is Takeover until the commit. Then the successor moves to sockets of its own,
// which it binds beside the predecessor's, and leaves those without loss. It is for
// services in which the process that serves has to make the sockets.
//
// # Standard error
//
// Until the commit the standard error of a successor is a pipe, which its predecessor
// copies to its own: an upgrade that fails reports the last lines. If the predecessor's
// standard error is a terminal, the successor gets a terminal in place of the pipe. If it
// is systemd's journal, JOURNAL_STREAM (systemd.exec(5)) names the pipe. So a program
// that looks for either at its start finds it. A process that the successor starts before
// the commit keeps the pipe: it gets SIGPIPE if it writes after the successor has ended.
// Start such a process after the first [EventOwner], or give it another standard error.
//
// # Non-goals
//
// The package does not read from connections or write to them: the server knows the
// protocol, and ends them without loss. It starts no process but the successor,
// supervises no process, and never calls os.Exit.
//
// # Concurrency
//
// All methods may be called from several goroutines. Hooks say from which
// goroutine they are called; none is called with a lock held. Every goroutine
// and descriptor is gone when [Upgrader.Shutdown] returns.
//
// # Platforms
//
// The package works on Linux. On other systems it builds, and [New] returns an error that
// matches [ErrUnsupported].
package handoff
