// Package handoffhttp serves net/http servers that lose no request when package handoff
// replaces them.
//
//	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
//	ln, err := up.Listen(ctx, "tcp", ":8080")
//	err = handoffhttp.Run(ctx, up, srv, ln)
//
// [http.Server.Shutdown] closes idle keep-alive connections, on which the next request
// may be on its way, and drops requests that it has read (golang/go#75591). This
// package does neither. After the commit of an upgrade, idle plaintext HTTP/1
// connections move to the successor, and busy ones follow after their response. The
// client does not notice. Some connections can't move: they use TLS or HTTP/2, the
// service stops, or the successor does not take them. They end when their client knows:
// by "Connection: close" in the next response, or by GOAWAY. Before the Upgrader's
// linger limit, none is closed in another way.
//
// # What moves
//
// A connection moves between two requests, or before its first one, with up to three
// bytes of the next request that net/http has already read; the successor reads these
// first. In the successor it waits outside net/http for its next byte, under the idle
// timeout that began in the predecessor. It is then served as a new connection:
// ConnState and ConnContext are called as for any other. In the predecessor, ConnState
// reports StateClosed. A connection on which a part of a request has arrived stays
// until its response. If a client always has another request in the pipeline, its
// connection moves between two of them, when a request ends where net/http's buffer
// ends. This happens after a request or two, because net/http then gets no more bytes
// than it needs.
//
// All this depends on a few facts about net/http, which New verifies for the net/http
// of the build. If one does not hold, connections don't move.
//
// # What handlers should know
//
// A handler with a long response (Server-Sent Events) or with a hijacked connection
// (WebSocket) should watch [Lingering]. [Config.Goodbye] can end a hijacked connection
// by the rules of its protocol, or pass it on. Until they end, these connections count
// in the linger, and are cut at its limit.
//
// Handlers and hooks get no *net.TCPConn but a wrapper with all its methods; its
// NetConn returns the *net.TCPConn. Don't read from that, or set its read deadlines,
// while net/http has the connection: the wrapper would not notice.
//
// # Other servers
//
// A server with its own protocol uses the parts of package handoff: [handoff.Listener],
// [handoff.Upgrader.Done], [handoff.Upgrader.SendConn]. Module integration, package
// servers, has tested recipes:
//
//   - grpc-go: GracefulStop after Done loses no call, unary or streaming, of a
//     client that honours GOAWAY. Connections don't move; a stream without end is
//     cut at the linger limit.
//   - fasthttp: SetConnectionClose in the handler after Done ends each connection
//     with its next response. One that is silent until the linger limit is closed
//     then, and a request that is on its way at that moment is lost.
//   - a server of raw TCP, which knows its own protocol, can pass each connection
//     on with what it has read of it. Nothing is closed; what the successor doesn't
//     take stays until the limit.
//
// # Concurrency and platforms
//
// A Server may be used from several goroutines, and has none left when Linger returns.
// The package builds everywhere, and is useful on Linux, like package handoff.
package handoffhttp
