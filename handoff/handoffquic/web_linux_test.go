package handoffquic_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

// webMain is the program of the example of Start, in a folder and on an address.
func webMain(args []string) {
	dir, address := args[0], args[1]
	up, err := handoff.New(&handoff.Config{ControlSocket: filepath.Join(dir, "ctl", "s"), LingerTimeout: time.Minute})
	if err == nil {
		err = serve(context.Background(), up, address, filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"), http.HandlerFunc(pidHandler))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func pidHandler(w http.ResponseWriter, _ *http.Request) {
	_, _ = io.WriteString(w, strconv.Itoa(os.Getpid()))
}

// TestAltSvc replaces a server for TCP and UDP on one port under clients of both: the
// answer over TCP names the port of HTTP/3, and an HTTP/3 connection stays with its process.
func TestAltSvc(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "reuseport_bpf")
	dir := testenv.ShortDir(t)
	if _, _, err := selfsigned.Write(dir, "flows.test"); err != nil {
		t.Fatal(err)
	}
	// The port is free for TCP and UDP on an address that is this test's alone.
	address := fmt.Sprintf("127.77.%d.%d:0", rand.IntN(256), 1+rand.IntN(254))
	cmd := testmain.Command(t, "web", dir, address)
	cmd.Stderr = os.Stderr // of its successor as well
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ctl, err := control.New(&control.Config{Socket: filepath.Join(dir, "ctl", "s")})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var at string
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for at == "" {
		if st, err := ctl.Status(ctx); err == nil && st.State == handoff.StateServing && len(st.Flows) == 1 {
			at = st.Flows[0].Address
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the service does not serve")
		}
	}
	pem, err := os.ReadFile(filepath.Join(dir, "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	conf := &tls.Config{RootCAs: roots, ServerName: "flows.test"}
	overTCP := func(pid int) (altPort string) {
		t.Helper()
		tr := &http.Transport{TLSClientConfig: conf, ForceAttemptHTTP2: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", at)
		}}
		defer tr.CloseIdleConnections()
		got, res := ask(t, tr)
		if got != pid || res.ProtoMajor != 2 {
			t.Errorf("pid %d answers over TCP, %s, want %d and HTTP/2", got, res.Proto, pid)
		}
		m := regexp.MustCompile(`^h3=":(\d+)"`).FindStringSubmatch(res.Header.Get("Alt-Svc"))
		if m == nil {
			t.Fatalf("Alt-Svc %q, want one of HTTP/3", res.Header.Get("Alt-Svc"))
		}
		return m[1]
	}
	overUDP := func(port string) *http3.ClientConn {
		t.Helper()
		host, _, err := net.SplitHostPort(at)
		if err != nil {
			t.Fatal(err)
		}
		conf := conf.Clone()
		conf.NextProtos = []string{http3.NextProtoH3}
		c, err := quic.DialAddr(ctx, net.JoinHostPort(host, port), conf, nil)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.CloseWithError(0, "") })
		return (&http3.Transport{}).NewClientConn(c)
	}
	want := func(when string, c http.RoundTripper, pid int) {
		t.Helper()
		if got, _ := ask(t, c); got != pid {
			t.Errorf("%s: pid %d answers over UDP, want %d", when, got, pid)
		}
	}
	first := cmd.Process.Pid
	old := overUDP(overTCP(first))
	want("before", old, first)
	report, err := ctl.Upgrade(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	second := report.Successor.PID
	want("after the upgrade, on the old connection", old, first)
	want("after the upgrade, on a new connection", overUDP(overTCP(second)), second)
	if err := old.CloseWithError(0, ""); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("the predecessor ended with %v", err)
	}
	if err := syscall.Kill(second, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for err == nil { // until it has ended
		select {
		case <-tick.C:
			_, err = ctl.Status(ctx)
		case <-ctx.Done():
			t.Fatal("the service does not end")
		}
	}
}

// ask returns the process that answers.
func ask(t *testing.T, rt http.RoundTripper) (int, *http.Response) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, "https://flows.test/", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := rt.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(string(b))
	if err != nil {
		t.Fatal(err)
	}
	return pid, res
}
