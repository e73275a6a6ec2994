package main

import (
	"context"
	"net/http"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveControl loses: at the commit it ends with its connections. It shows that the
// clients of the tests count what is lost.
func serveControl(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: http.HandlerFunc(reply)}
	return stay(ctx, up, func() error { return srv.Serve(ln) }, func() { _ = srv.Close() })
}
