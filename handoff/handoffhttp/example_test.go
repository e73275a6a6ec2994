package handoffhttp_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/reuseport"
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

// A member of a SO_REUSEPORT group that leaves it at SIGTERM: the other members serve on,
// and no request fails.
func ExampleRun_reuseport() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ln, err := reuseport.Listen(ctx, "tcp", ":8080", nil)
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir("public"))}
	if err := handoffhttp.Run(ctx, nil, srv, ln); err != nil { // until ctx ends
		log.Fatal(err)
	}
}

// A server whose TLS connections move to the next version, without a handshake.
func ExampleServer_RunTLS() {
	up, err := handoff.New(&handoff.Config{Mode: handoff.Takeover, Name: "site"})
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	ln, err := up.Listen(ctx, "tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.FileServer(http.Dir("public"))}
	s := handoffhttp.New(srv, &handoffhttp.Config{Upgrader: up, MoveTLS: true})
	err = s.RunTLS(ctx, "cert.pem", "key.pem", ln)
	if err != nil {
		log.Fatal(err)
	}
}

// Behind a load balancer the server waits for the balancer to notice.
func ExampleServer_Readiness() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ln, err := net.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir("public")))
	s := handoffhttp.New(&http.Server{Handler: mux}, &handoffhttp.Config{Delay: 10 * time.Second})
	mux.Handle("GET /ready", s.Readiness())
	if err := s.Run(ctx, ln); err != nil {
		log.Fatal(err)
	}
}

// In the place of http.Server's Serve and Shutdown.
func ExampleServer_Shutdown() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	ln, err := net.Listen("tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	s := handoffhttp.New(&http.Server{Handler: http.FileServer(http.Dir("public"))}, nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		<-ctx.Done()
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			log.Print(err)
		}
	}()
	if err := s.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	<-done
	log.Printf("cut: %v", s.Linger(ctx).Cut)
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
	s := handoffhttp.New(srv, &handoffhttp.Config{Upgrader: up})
	ln2 := s.Wrap(ln)
	go func() { _ = s.Serve(ln2) }() // ends with Done

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
	handoffhttp.New(srv, &handoffhttp.Config{
		Upgrader: up,
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
