package main

import (
	"context"
	"errors"

	"github.com/seed-11c92bf9/baton/handoff"
)

// stay is the life of a server whose connections stay with their process until the client
// ends them, or until the linger limit. serve returns when the listener is closed, which
// the Upgrader does after the commit. leave asks the clients to end.
func stay(ctx context.Context, up *handoff.Upgrader, serve func() error, leave func()) error {
	served := make(chan error, 1)
	go func() { served <- serve() }() // ends with Done, at the latest
	if err := up.Ready(); err != nil {
		return err
	}
	select {
	case <-up.Done():
	case err := <-served: // the server has failed
		return errors.Join(err, up.Shutdown(ctx))
	}
	leave()
	err := up.Shutdown(ctx) // waits for the connections
	<-served                // an error by the closed listener
	return err
}
