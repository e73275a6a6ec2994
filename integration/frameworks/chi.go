package main

import (
	"context"
	"net/http"

	"github.com/go-chi/chi/v5"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// serveChi serves a chi.Router, which is an http.Handler.
func serveChi(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	router := chi.NewRouter()
	router.Post("/", reply)
	return handoffhttp.Run(ctx, up, &http.Server{Handler: router}, ln)
}
