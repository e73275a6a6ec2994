// Package handoffhttp serves net/http servers that lose no request when they
// are replaced by package handoff.
//
//	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
//	ln, err := up.Listen(ctx, "tcp", ":8080")
//	err = handoffhttp.Run(ctx, up, srv, ln)
//
// [http.Server.Shutdown] closes idle keep-alive connections on which the next
// request may be on its way, and drops requests that it has read
// (golang/go#75591). This package does neither: after the commit of an upgrade,
// idle plaintext HTTP/1 connections move to the successor and go on there, and
// connections that are busy follow when their response is done. The client sees
// nothing of it. Connections that can't move, because they are TLS or HTTP/2,
// because the service stops, or because the successor doesn't take them, end
// when their client knows: with "Connection: close" on the next response, or
// GOAWAY. Until the linger limit of the Upgrader none is closed before that.
//
// # What moves
//
// A connection moves between two requests, or before its first one, with the
// bytes of a next request that net/http has read already: up to three, which the
// successor puts in front. In the successor it waits outside of net/http until
// its next byte, under the idle timeout that had begun, and then comes as a new
// connection: ConnState and ConnContext are called for it as for any other. In
// the predecessor, ConnState says StateClosed. A client that has sent a part of a
// request stays until it has its response. One that has always another request
// in the pipeline moves in the midst of them, as soon as one ends where
// net/http's buffer does: after a request or two, because net/http is given no
// more bytes than it needs then.
//
// All this stands on a few facts about net/http, which New checks on the
// net/http at hand; where one doesn't hold, connections don't move.
//
// # What handlers should know
//
// A handler with a long response (Server-Sent Events), or with a connection that
// it has hijacked (WebSocket), should look at [Lingering]. [Config.Goodbye] is
// the place where a protocol says goodbye or passes its connections on. Until
// they end, they count in the linger, and are cut at its limit.
//
// The connections that handlers and hooks get are not *net.TCPConn but wrappers
// with all its methods; their NetConn returns it. Reading or setting read
// deadlines past the wrapper while net/http has the connection breaks its
// bookkeeping.
//
// # Other servers
//
// A server with its own protocol uses the parts of package handoff:
// [handoff.Listener], [handoff.Upgrader.Done], [handoff.Upgrader.SendConn].
// Each of these is a recipe, with its test, in module integration, package
// servers:
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
// A Server may be used from several goroutines, and has none left when Linger
// returns. The package builds everywhere; it is of use where package handoff is,
// on Linux.
package handoffhttp
