package main

import (
	"context"
	"net/http"

	"github.com/gorilla/mux"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// serveMux serves a mux.Router, which is an http.Handler.
func serveMux(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	router := mux.NewRouter()
	router.HandleFunc("/", reply).Methods(http.MethodPost)
	return handoffhttp.Run(ctx, up, &http.Server{Handler: router}, ln)
}
