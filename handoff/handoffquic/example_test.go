package handoffquic_test

import (
	"context"
	"crypto/tls"
	"log"
	"net/http"

	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic"
)

// An HTTP/3 server that SIGUSR2 replaces.
func ExampleRun() {
	cert, err := tls.LoadX509KeyPair("cert.pem", "key.pem")
	if err != nil {
		log.Fatal(err)
	}
	up, err := handoff.New(&handoff.Config{Name: "web"})
	if err != nil {
		log.Fatal(err)
	}
	srv := &http3.Server{TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	if err := handoffquic.Run(context.Background(), up, srv, ":443", nil); err != nil {
		log.Fatal(err)
	}
}

// HTTP/1, HTTP/2 and HTTP/3 on one port, the last announced by Alt-Svc.
func ExampleStart() {
	up, err := handoff.New(&handoff.Config{Name: "web"})
	if err != nil {
		log.Fatal(err)
	}
	if err := serve(context.Background(), up, ":443", "cert.pem", "key.pem", http.DefaultServeMux); err != nil {
		log.Fatal(err)
	}
}

func serve(ctx context.Context, up *handoff.Upgrader, address, certFile, keyFile string, h http.Handler) error {
	cert, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return err
	}
	ln, err := up.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	h3 := &http3.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{cert}}}
	if _, err := handoffquic.Start(ctx, up, h3, ln.Addr().String(), nil); err != nil {
		return err
	}
	announce := func(w http.ResponseWriter, r *http.Request) {
		_ = h3.SetQUICHeaders(w.Header()) // fails only before Start
		h.ServeHTTP(w, r)
	}
	// Run calls Ready, and its Shutdown waits for the connections of h3.
	return handoffhttp.RunTLS(ctx, up, &http.Server{Handler: http.HandlerFunc(announce)}, certFile, keyFile, ln)
}
