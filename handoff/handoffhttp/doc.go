// Package handoffhttp serves net/http servers that lose no request when they end, or when
// package handoff replaces them.
//
//	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
//	ln, err := up.Listen(ctx, "tcp", ":8080")
//	err = handoffhttp.Run(ctx, up, srv, ln)
//
// [http.Server.Shutdown] closes idle keep-alive connections, on which the next request
// may be on its way, and drops requests that it has read (golang/go#75591). This
// package does neither. After the commit of an upgrade, idle plaintext HTTP/1
// connections move to the successor, and busy ones follow after their response. The
// client does not notice. With [Config.MoveTLS], those over TLS move too. Some
// connections can't move: they use HTTP/2, or TLS without that, the service stops, or the
// successor does not take them. They end when their client knows: by "Connection: close"
// in the next response, or by GOAWAY. Before the Upgrader's linger limit, none is closed
// in another way.
//
// # Without an Upgrader
//
// A server that only ends while others serve on, in its SO_REUSEPORT group or behind a
// load balancer, needs no Upgrader:
//
//	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
//	ln, err := reuseport.Listen(ctx, "tcp", ":8080", nil)
//	err = handoffhttp.Run(ctx, nil, srv, ln)
//
// Or [Server.Serve] and [Server.Shutdown] take the place of http.Server's. Any
// net.Listener will do: the members of package reuseport leave their group exactly, also
// in a wrapper that embeds them; others are closed, and what waits in their queue is
// reset by the kernel, as always. What the usual calls do to HTTP when another member of
// the group serves on, each a test (TestWhatEndsAServerReallyDoes):
//
//	                        in the queue  accepted, silent  idle, request on its way  in a handler
//	http.Server.Close       reset         lost              lost                      lost
//	http.Server.Shutdown    reset         lost              lost                      answered
//	Drain, then Shutdown    served        lost              lost                      answered
//	Server.Shutdown         served        served            served                    answered
//
// Idle keep-alive connections end with the next request of their client, so Shutdown
// takes as long as the slowest of them: with clients that send each 10 ms and each
// second, 11 ms and 1.0 s (TestShutdownWithin). Those that stay silent are closed at the limit,
// [Config.LingerTimeout], or when four fifths of the time to the deadline of Shutdown's
// context have passed. Of requests in a pipeline, those behind the response that asks to
// close are not answered (RFC 9112, section 9.3.2). A request costs as much as on an http.Server: 1.00 of its requests
// per second, the median of 600 pairs of rounds, and no allocation
// (BenchmarkRequestsAlone, TestAllocations).
//
// # Behind a load balancer or in a pod
//
// After SIGTERM traffic still arrives, until the balancer has noticed. [Config.Delay] is
// for that time: the server accepts and serves on, each response ends its connection, and
// [Server.Readiness] answers 503. With an Upgrader, a stop signal that the Upgrader
// receives begins the delay, too ([handoff.Upgrader.BeforeStop]). In Kubernetes the endpoint is taken out when the pod is
// deleted, in parallel to SIGTERM, so no preStop hook is needed:
//
//	spec:
//	  terminationGracePeriodSeconds: 50 # more than Delay + 5/4 of LingerTimeout
//	  containers:
//	  - readinessProbe:
//	      httpGet: {path: /ready, port: 8080}
//	      periodSeconds: 5
//	      failureThreshold: 1
//
// Delay (10 s here) is the time until no node or balancer sends new connections. Kubernetes
// needs a few seconds to send the changed endpoint to all nodes. A balancer that has only
// the check needs periodSeconds times failureThreshold, plus the probe's timeout (for
// HAProxy, inter times fall). LingerTimeout (30 s, the default) is the longest pause of a
// client that keeps its connection, plus the longest request. Run ends after Delay and
// five fourths of LingerTimeout at the latest: requests get the last quarter. The kubelet sends SIGKILL after
// terminationGracePeriodSeconds, which must be longer.
//
// # What moves
//
// A connection moves between two requests, or before its first one, with up to three
// bytes of the next request that net/http has already read; the successor reads these
// first. In the successor it waits outside net/http for its next byte, under the idle
// timeout that began in the predecessor. Then net/http serves it as a new connection, and
// calls ConnState and ConnContext. In the predecessor, ConnState
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
// by the rules of its protocol, or pass it on. The linger waits for these connections, and
// cuts them at its limit.
//
// Handlers and hooks get no *net.TCPConn but a wrapper with all its methods; its
// NetConn returns the *net.TCPConn. Don't read from the latter, or set its read deadlines,
// while net/http has the connection: the wrapper does not see such a call.
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
//     with its next response. At the linger limit the Upgrader closes a connection
//     that was silent until then; a request that is on its way at that moment is lost.
//   - a server of raw TCP, which knows its own protocol, can pass each connection
//     on with the bytes that it has read from it. It closes none; a connection that
//     the successor doesn't take stays until the limit.
//
// # Concurrency and platforms
//
// A Server may be used from several goroutines. Its own have ended when Linger returns.
// Like package handoff, the package works on Linux; on other systems it builds.
package handoffhttp
