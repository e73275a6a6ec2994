// Package servers tests Baton's listeners under other servers than net/http's, and
// net/http's under clients of other projects. Each server has a recipe:
//
// # grpc-go
//
//	lis := ln
//	go gs.Serve(lis)
//	err = up.Ready()
//	<-up.Done()
//	go gs.GracefulStop() // wait for it at the end
//	err = up.Shutdown(ctx) // waits for the connections, up to the linger limit
//
// GracefulStop sends GOAWAY in both phases and waits for calls and streams: no call is
// lost, unary or streaming, of a client that honours GOAWAY (as each HTTP/2 client
// should). A stream that doesn't end is cut at the linger limit, and counted: let
// Shutdown do that, not gs.Stop, which sends no GOAWAY. Connections don't move: clients
// connect again.
//
// # fasthttp
//
//	handler := func(c *fasthttp.RequestCtx) {
//		if lingering.Load() {
//			c.SetConnectionClose()
//		}
//		…
//	}
//	go srv.Serve(ln)
//	err = up.Ready()
//	<-up.Done()
//	lingering.Store(true)
//	err = up.Shutdown(ctx) // waits for the connections, up to the linger limit
//
// Each connection ends after its next response. One that is silent until the linger
// limit is closed then, and a request on its way at that moment is lost: fasthttp has
// no hook with which a connection could move. Don't call fasthttp's Shutdown, which
// closes idle connections at once.
//
// # A server of raw TCP
//
// It knows its own protocol, so it can do what handoffhttp does: end its reads by a
// deadline once Done is closed, and pass each connection on with
// [handoff.Upgrader.SendConn], with the bytes that were read and not used as its state.
// The successor reads these first. Nothing is lost or closed. A connection that the
// successor does not take stays until it ends, or until the linger limit.
package servers
