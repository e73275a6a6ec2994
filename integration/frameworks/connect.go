package main

import (
	"context"
	"net/http"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// procedure is the path of the service's one call.
const procedure = "/baton.Echo/Ask"

// serveConnect serves a handler of connect, on HTTP/1 and, for gRPC's clients, HTTP/2
// without TLS.
func serveConnect(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	routes := http.NewServeMux()
	routes.Handle(procedure, connect.NewUnaryHandler(procedure, func(_ context.Context, r *connect.Request[wrapperspb.StringValue]) (*connect.Response[wrapperspb.StringValue], error) {
		return connect.NewResponse(wrapperspb.String(answer([]byte(r.Msg.GetValue())))), nil
	}))
	srv := &http.Server{Handler: routes, Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	return handoffhttp.Run(ctx, up, srv, ln)
}
