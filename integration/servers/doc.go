// Package servers tests Baton's listeners under servers other than net/http's,
// and net/http's under clients that nobody here wrote. Each server is a recipe:
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
// GracefulStop sends GOAWAY in both phases and waits for calls and streams: no
// call is lost, unary or streaming, of a client that honours GOAWAY (each that
// speaks HTTP/2 should). A stream that doesn't end is cut at the linger limit, and
// counted: let Shutdown do that, not gs.Stop, which tells nobody. Connections
// don't move: clients come back by a new one.
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
// Each connection ends after its next response. One that is silent until the
// linger limit is closed then, and a request that is on its way at that moment is
// lost: fasthttp offers no hook by which a connection could move. Don't call
// fasthttp's Shutdown, which closes idle connections at once.
//
// # A server of raw TCP
//
// It knows its own protocol, so it can do what handoffhttp does: call its
// reads back by a deadline once Done is closed, and pass each connection on with
// [handoff.Upgrader.SendConn], with what was read and not used as its state. A
// successor puts that in front. Nothing is lost or closed; what the successor
// does not take stays, and goes on until it ends or the linger limit comes.
package servers
