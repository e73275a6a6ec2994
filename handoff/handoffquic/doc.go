// Package handoffquic replaces QUIC and HTTP/3 servers without breaking a connection.
//
//	err := handoffquic.Run(ctx, up, &http3.Server{Handler: h, TLSConfig: t}, ":443", nil)
//
// From the successor's Ready on it gets new connections. Each older one stays with its
// process, whether the client's address changes or not: see
// [handoff.Upgrader.ListenFlows], which needs no privilege and mode Takeover or Inherit.
// A connection that a successor accepts in its probation stays open after a rollback.
//
// After the commit the predecessor serves its connections until the clients close them.
// At the linger limit it sends GOAWAY, and closes what is left after [Config.Grace]. The
// report counts both: CutBy has the reasons "quic goaway" and "quic". If the predecessor
// is killed, its clients get a stateless reset from its successor, and so an error at
// once. If the process that serves is killed, one that starts anew serves at once, and the
// connections of predecessors go on; it has other keys.
//
// A process passes on to its successor the keys of stateless resets, of address
// validation tokens and of TLS session tickets: a client resumes with the successor, by
// 0-RTT as well, and needs no new Retry. The keys are only in memory.
//
// # Other protocols over QUIC
//
// [Listen] returns an [Endpoint] with a [quic.Transport], for a server that is not an
// http3.Server. It listens before [handoff.Upgrader.Ready], counts its connections by
// [Endpoint.Open] with [handoff.Upgrader.Hold], and serves them on after Done.
//
// # Beside TCP
//
// A server for HTTP/1 and HTTP/2 on the same port announces HTTP/3 by Alt-Svc. [Start]
// starts the HTTP/3 server, and the Run of package handoffhttp does the rest for both: see
// the example of Start.
//
// It is a module of its own, so that a program without it does not have
// github.com/quic-go/quic-go among the requirements of its module.
package handoffquic
