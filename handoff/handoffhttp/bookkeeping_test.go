package handoffhttp

import (
	"context"
	"net"
	"net/http"
	"syscall"
	"testing"
	"time"
)

// silentConn answers at once: no kernel is behind it.
type silentConn struct{ net.Conn }

func (silentConn) Read(p []byte) (int, error)            { return copy(p, "POST"), nil }
func (silentConn) SetReadDeadline(time.Time) error       { return nil }
func (silentConn) SyscallConn() (syscall.RawConn, error) { return nil, nil }

// BenchmarkBookkeeping makes the calls that net/http makes for a request: it measures
// what a Server adds to a request, without the kernel and net/http. A busy machine does
// not distort it, unlike the ratio of BenchmarkRequests: the least of a few rounds
// counts.
func BenchmarkBookkeeping(b *testing.B) {
	srv := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}
	s := newServer(nil, srv, nil)
	srv = s.srv
	t := &tcpConn{}
	t.srv, t.l, t.raw, t.self, t.outer = s, &listener{srv: s, name: "l"}, silentConn{}, t, t
	srv.ConnState(t, http.StateNew)
	r := (&http.Request{}).WithContext(srv.ConnContext(context.Background(), t))
	buf := make([]byte, s.facts.buffer)
	b.ReportAllocs()
	for b.Loop() {
		_ = t.SetReadDeadline(time.Time{})
		_, _ = t.Read(buf)
		srv.ConnState(t, http.StateActive)
		_ = t.SetReadDeadline(time.Time{})
		_, _ = t.Read(buf[:1]) // in the background
		srv.Handler.ServeHTTP(nil, r)
		_ = t.SetReadDeadline(aLongTimeAgo)
		_ = t.SetReadDeadline(time.Time{})
		srv.ConnState(t, http.StateIdle)
		_ = t.SetReadDeadline(time.Time{})
	}
}
