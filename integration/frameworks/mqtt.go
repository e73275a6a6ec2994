package main

import (
	"context"
	"io"
	"log/slog"

	mqtt "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/hooks/auth"
	"github.com/mochi-mqtt/server/v2/listeners"

	"github.com/seed-11c92bf9/baton/handoff"
)

// serveMQTT serves by github.com/mochi-mqtt/server. Its sessions, subscriptions and
// retained messages are of one process: a broker with more than one process at a time
// needs one of the broker's storage hooks, and clients that connect again.
func serveMQTT(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	broker := mqtt.New(&mqtt.Options{Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
	if err := broker.AddHook(new(auth.AllowHook), nil); err != nil {
		return err
	}
	if err := broker.AddListener(listeners.NewNet("tcp", ln)); err != nil {
		return err
	}
	serve := func() error {
		err := broker.Serve() // returns at once
		if err == nil {
			<-up.Done()
		}
		return err
	}
	return stay(ctx, up, serve, func() {})
}
