package handoffquic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// A client has one connection to the service in a folder.
type client struct {
	conn *quic.Conn
	h3   *http3.ClientConn
}

// serverOf returns the address of the service in a folder.
func serverOf(t *testing.T, dir string) *net.UDPAddr {
	t.Helper()
	address, err := os.ReadFile(filepath.Join(dir, "address"))
	if err != nil {
		t.Fatal(err)
	}
	at, err := net.ResolveUDPAddr("udp", string(address))
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// tlsOf returns the configuration of its clients.
func tlsOf(t *testing.T, dir string) *tls.Config {
	t.Helper()
	pem, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	return &tls.Config{RootCAs: roots, ServerName: "flows.test", NextProtos: []string{http3.NextProtoH3}}
}

// pidOf returns the process that serves.
func pidOf(t *testing.T, dir string) int {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, "pid"))
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func newClient(t *testing.T, dir string) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := quic.DialAddr(ctx, serverOf(t, dir).String(), tlsOf(t, dir), &quic.Config{MaxIdleTimeout: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return &client{c, (&http3.Transport{}).NewClientConn(c)}
}

// ask returns the process that answers.
func (c *client) ask() (int, error) { return c.send(http.MethodPost, strings.NewReader("hello")) }

func (c *client) send(method string, body io.Reader) (int, error) {
	req, err := http.NewRequest(method, "https://flows.test/", body)
	if err != nil {
		return 0, err
	}
	res, err := c.h3.RoundTrip(req)
	if err != nil {
		return 0, err
	}
	_, err = io.Copy(io.Discard, res.Body)
	if err := errors.Join(err, res.Body.Close()); err != nil {
		return 0, err
	}
	return strconv.Atoi(res.Header.Get("X-Pid"))
}

// want wants a process to answer.
func (c *client) want(t *testing.T, what string, pid int) {
	t.Helper()
	if got, err := c.ask(); got != pid || err != nil {
		t.Errorf("%s: pid %d, %v, want %d", what, got, err, pid)
	}
}

// awaitEvent waits until a process has written an event.
func awaitEvent(t *testing.T, dir, event string, pid int) {
	t.Helper()
	want := `"kind":"` + event + `","pid":` + strconv.Itoa(pid) + `,`
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(time.Minute)
	for {
		if b, err := os.ReadFile(filepath.Join(dir, "events")); err == nil && strings.Contains(string(b), want) {
			return
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("no event %s of pid %d", event, pid)
		}
	}
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// TestKilled kills a successor in its probation, which no other connection notices, and a
// predecessor in its linger, whose clients get a stateless reset from its successor.
func TestKilled(t *testing.T) {
	testenv.Long(t, "handoff.TestFlowsOfKilled")
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := rig.Run{Service: rig.Service{Mode: mode, Probation: time.Second}, Upgrades: 1}
			r.Between = func(n int) error {
				if n == 0 {
					return nil
				}
				dir := r.Service.Dir
				old := newClient(t, dir)
				first, err := old.ask()
				if err != nil {
					return err
				}
				kill(t, first, syscall.SIGUSR2)
				awaitEvent(t, dir, "paused", first)
				c := newClient(t, dir)
				second, err := c.ask()
				if err != nil {
					return err
				}
				if second == first {
					t.Error("the predecessor has a new connection in the probation")
				}
				kill(t, second, syscall.SIGKILL)
				old.want(t, "the successor is killed", first)
				awaitEvent(t, dir, "upgrade-failed", first)
				old.want(t, "after the rollback", first)
				newClient(t, dir).want(t, "a new connection after the rollback", first)

				kill(t, first, syscall.SIGUSR2)
				awaitEvent(t, dir, "lingering", first)
				old.want(t, "in the linger", first)
				kill(t, first, syscall.SIGKILL)
				began := time.Now()
				_, err = old.ask()
				t.Logf("the client has an error after %v: %v", time.Since(began), err)
				var reset *quic.StatelessResetError
				if !errors.As(err, &reset) {
					t.Errorf("after the predecessor was killed: %v, want a stateless reset", err)
				}
				return nil
			}
			load(t, &r)
		})
	}
}

// TestRolledBack rolls an upgrade back in its probation: the connections of both processes
// stay open.
func TestRolledBack(t *testing.T) {
	testenv.Long(t, "handoff.TestFlowsRolledBack")
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			r := rig.Run{Service: rig.Service{Mode: mode, Probation: time.Minute}}
			r.Between = func(int) error {
				dir := r.Service.Dir
				old := newClient(t, dir)
				first, err := old.ask()
				if err != nil {
					return err
				}
				kill(t, first, syscall.SIGUSR2)
				awaitEvent(t, dir, "paused", first)
				tried := newClient(t, dir)
				second, err := tried.ask()
				if err != nil {
					return err
				}
				ctl, err := control.New(&control.Config{Socket: filepath.Join(dir, "ctl", "s")})
				if err != nil {
					return err
				}
				if _, err := ctl.Rollback(t.Context(), "a planned rollback"); err != nil {
					return err
				}
				awaitEvent(t, dir, "upgrade-failed", first)
				old.want(t, "the predecessor's, after the rollback", first)
				tried.want(t, "the successor's, after the rollback", second)
				newClient(t, dir).want(t, "a new one, after the rollback", first)
				return tried.conn.CloseWithError(0, "")
			}
			load(t, &r)
		})
	}
}
