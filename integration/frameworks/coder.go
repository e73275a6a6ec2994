package main

import (
	"context"
	"net/http"

	"github.com/coder/websocket"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// reconnect is the message that asks a client of a WebSocket to connect again. The server
// must not send a close frame instead: a message that is on its way would be lost.
const reconnect = "reconnect"

// serveCoder serves WebSockets by github.com/coder/websocket.
func serveCoder(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return handoffhttp.Run(ctx, up, &http.Server{Handler: http.HandlerFunc(talkCoder)}, ln)
}

func talkCoder(w http.ResponseWriter, r *http.Request) {
	c, err := websocket.Accept(w, r, nil)
	if err != nil {
		return // Accept has answered
	}
	defer c.CloseNow()
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	go func() { // ends with the handler
		select {
		case <-handoffhttp.Lingering(ctx):
			_ = c.Write(ctx, websocket.MessageText, []byte(reconnect)) // or the client has gone
		case <-ctx.Done():
		}
	}()
	for {
		kind, message, err := c.Read(ctx)
		if err != nil {
			return
		}
		if err := c.Write(ctx, kind, []byte(answer(message))); err != nil {
			return
		}
	}
}
