package handoffhttp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestSameAsPlainTLS shows that what a user has set in an http.Server for TLS is
// asked and told as by a plain one, on HTTP/1 and HTTP/2: the TLS config's
// callbacks and protocols, the server's hooks, what a handler sees.
func TestSameAsPlainTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	cert, key, err := selfsigned.Write(dir, "h")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	type connKey struct{}
	for _, protos := range [][]string{{"h2"}, {"http/1.1"}, {"mine"}, nil} {
		t.Run(fmt.Sprint(protos), func(t *testing.T) {
			t.Parallel()
			talk := func(t *testing.T, baton bool) []string {
				var mu sync.Mutex
				var told []string
				tell := func(format string, args ...any) {
					mu.Lock()
					defer mu.Unlock()
					told = append(told, fmt.Sprintf(format, args...))
				}
				closed := make(chan struct{})
				srv := &http.Server{
					TLSConfig: &tls.Config{
						NextProtos: []string{"mine", "h2"},
						ClientAuth: tls.RequestClientCert,
						GetCertificate: func(chi *tls.ClientHelloInfo) (*tls.Certificate, error) {
							tell("GetCertificate %s", chi.ServerName)
							return &pair, nil
						},
						GetConfigForClient: func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
							tell("GetConfigForClient %v", chi.SupportedProtos)
							return nil, nil
						},
						VerifyConnection: func(cs tls.ConnectionState) error {
							tell("VerifyConnection %q %d", cs.NegotiatedProtocol, len(cs.PeerCertificates))
							return nil
						},
					},
					TLSNextProto: nil,
					BaseContext: func(ln net.Listener) context.Context {
						return context.WithValue(context.Background(), connKey{}, "base")
					},
					ConnContext: func(ctx context.Context, nc net.Conn) context.Context {
						tell("ConnContext %T %v", nc, ctx.Value(connKey{}))
						return context.WithValue(ctx, connKey{}, nc.RemoteAddr().String())
					},
					ConnState: func(nc net.Conn, st http.ConnState) {
						tell("ConnState %T %v", nc, st)
						if st == http.StateClosed {
							close(closed)
						}
					},
				}
				srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, err := io.ReadAll(r.Body)
					tell("handler %s %s %q %v, TLS %q %s %d", r.Method, r.Proto, b, err, r.TLS.NegotiatedProtocol, r.TLS.ServerName, len(r.TLS.PeerCertificates))
					srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
					tell("context %v, server %v", r.Context().Value(connKey{}) == r.RemoteAddr, ok && srv.Handler != nil)
					_, pushes := w.(http.Pusher)
					tell("pushes %v", pushes)
					_, _ = io.WriteString(w, "ok")
				})
				addr, stop := serveTLSFor(t, baton, srv)
				defer stop()
				nc, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer nc.Close()
				tc := tls.Client(nc, &tls.Config{InsecureSkipVerify: true, ServerName: "h", NextProtos: protos, Certificates: []tls.Certificate{pair}})
				_ = tc.SetDeadline(time.Now().Add(patience)) // Handshake tells
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				if tc.ConnectionState().NegotiatedProtocol == "mine" {
					// net/http doesn't know it, and closes.
					if b, err := io.ReadAll(tc); err != nil || len(b) > 0 {
						t.Errorf("read %q, %v, want EOF", b, err)
					}
				} else {
					tr := &http.Transport{
						DialTLSContext: func(context.Context, string, string) (net.Conn, error) { return tc, nil },
						Protocols:      new(http.Protocols),
					}
					tr.Protocols.SetHTTP1(tc.ConnectionState().NegotiatedProtocol != "h2")
					tr.Protocols.SetHTTP2(tc.ConnectionState().NegotiatedProtocol == "h2")
					for range 2 {
						req, _ := http.NewRequest("POST", "https://h/", nil)
						res, err := tr.RoundTrip(req)
						if err != nil {
							t.Fatal(err)
						}
						_, _ = io.Copy(io.Discard, res.Body)
						_ = res.Body.Close()
					}
					tr.CloseIdleConnections()
				}
				_ = nc.Close()
				select {
				case <-closed:
				case <-time.After(patience):
					t.Error("the server doesn't say that the connection is closed")
				}
				mu.Lock()
				defer mu.Unlock()
				// HTTP/2 tells of the states from several goroutines.
				if slices.Contains(protos, "h2") {
					slices.Sort(told)
				}
				return told
			}
			plain := talk(t, false)
			if diff := cmp.Diff(plain, talk(t, true)); diff != "" {
				t.Errorf("differs from what a plain http.Server does (-want +got):\n%s", diff)
			}
		})
	}
}

// serveTLSFor serves srv on a port of its own until stop.
func serveTLSFor(t *testing.T, baton bool, srv *http.Server) (addr string, stop func()) {
	t.Helper()
	ended := make(chan error, 1)
	if !baton {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		go func() { ended <- srv.ServeTLS(ln, "", "") }()
		return ln.Addr().String(), func() {
			_ = srv.Close()
			<-ended
		}
	}
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: testenv.ShortDir(t) + "/c/s",
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := up.Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- handoffhttp.RunTLS(ctx, up, srv, "", "", ln) }()
	return ln.Addr().String(), func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ServeTLS() = %v, want nil", err)
		}
	}
}
