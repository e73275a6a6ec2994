package main

import (
	"context"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// serveGorilla serves WebSockets by github.com/gorilla/websocket.
func serveGorilla(ctx context.Context, up *handoff.Upgrader, address string) error {
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return handoffhttp.Run(ctx, up, &http.Server{Handler: http.HandlerFunc(talkGorilla)}, ln)
}

func talkGorilla(w http.ResponseWriter, r *http.Request) {
	var upgrader websocket.Upgrader
	c, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		return // Upgrade has answered
	}
	defer c.Close()
	var one sync.Mutex // a websocket.Conn has one writer at a time
	write := func(kind int, message string) error {
		one.Lock()
		defer one.Unlock()
		return c.WriteMessage(kind, []byte(message))
	}
	over := make(chan struct{})
	defer close(over)
	go func() { // ends with the handler
		select {
		case <-handoffhttp.Lingering(r.Context()):
			_ = write(websocket.TextMessage, reconnect) // or the client has gone
		case <-over:
		}
	}()
	for {
		kind, message, err := c.ReadMessage()
		if err != nil {
			return
		}
		if err := write(kind, answer(message)); err != nil {
			return
		}
	}
}
