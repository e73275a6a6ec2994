package handoffhttp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// A whole service: SIGUSR2 replaces it, SIGTERM ends it.
func ExampleRun() {
	ctx := context.Background()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{
		Handler:           http.FileServer(http.Dir("public")),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
	}
	if err := handoffhttp.Run(ctx, up, srv, ln); err != nil {
		log.Fatal(err)
	}
}

// With TLS, clients resume their sessions with the successor.
func ExampleRunTLS() {
	ctx := context.Background()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir("public"))}
	if err := handoffhttp.RunTLS(ctx, up, srv, "cert.pem", "key.pem", ln); err != nil {
		log.Fatal(err)
	}
}

// A program with a lifecycle of its own uses the parts.
func ExampleServer() {
	ctx := context.Background()
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "api"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen(ctx, "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir("public"))}
	s := handoffhttp.New(up, srv, nil)
	ln2 := s.Wrap(ln)
	go func() { _ = srv.Serve(ln2) }() // ends with Done

	if err := up.Ready(); err != nil {
		log.Fatal(err)
	}
	<-up.Done()
	report := s.Linger(ctx)
	log.Printf("%d connections moved in %v", report.Moved, report.Took)
	if err := up.Shutdown(ctx); err != nil {
		log.Fatal(err)
	}
}

// A server of another protocol over TLS shares its ticket keys as well.
func ExampleShareTickets() {
	var up *handoff.Upgrader // from New, before Ready
	var ln *handoff.Listener // from up
	var cfg *tls.Config      // with certificates
	if err := handoffhttp.ShareTickets(up, "mail tickets", cfg); err != nil {
		log.Fatal(err)
	}
	_ = tls.NewListener(ln, cfg)
}

// A response without end ends when the server begins to linger. The client connects
// again and reaches the successor.
func ExampleLingering() {
	http.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		rc := http.NewResponseController(w)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case now := <-tick.C:
				fmt.Fprintf(w, "data: %v\n\n", now)
				if err := rc.Flush(); err != nil {
					return
				}
			case <-handoffhttp.Lingering(r.Context()):
				fmt.Fprint(w, "event: goodbye\ndata:\n\n")
				return
			case <-r.Context().Done():
				return
			}
		}
	})
}

// A protocol that has taken its connections from net/http passes them on.
func ExampleConfig_goodbye() {
	var up *handoff.Upgrader // of handoff.New
	srv := &http.Server{}
	handoffhttp.New(up, srv, &handoffhttp.Config{
		Goodbye: func(ctx context.Context, nc net.Conn) {
			// The successor gets it from up.Conns("chat"). What was read from it
			// and not used would go along as its state.
			if err := up.SendConn(ctx, "chat", nc, nil); err != nil {
				_, _ = io.WriteString(nc, "server is going away, come back\n")
				_ = nc.Close()
			}
		},
	})
}
