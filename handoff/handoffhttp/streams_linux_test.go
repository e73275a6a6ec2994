package handoffhttp_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/selfsigned"
)

// serviceMain is a service with handlers for all that takes long.
func serviceMain([]string) {
	var hooked hooked
	(&rig.Process{
		OnShutdown: hooked.end,
		Handle: func(p *rig.Process, mux *http.ServeMux) {
			gen := fmt.Sprint(p.Generation())
			mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.WriteString(w, "data: first\n\n")
				_ = http.NewResponseController(w).Flush()
				select {
				case <-handoffhttp.Lingering(r.Context()):
					_, _ = io.WriteString(w, "data: last\n\n")
				case <-r.Context().Done():
				}
			})
			mux.HandleFunc("/forever", func(w http.ResponseWriter, r *http.Request) {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			})
			mux.HandleFunc("/lines", func(w http.ResponseWriter, r *http.Request) {
				nc, rw, err := http.NewResponseController(w).Hijack()
				if err == nil {
					_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
					lines(gen, nc, rw.Reader)
				}
			})
			mux.HandleFunc("/hooked", func(w http.ResponseWriter, r *http.Request) {
				if nc, _, err := http.NewResponseController(w).Hijack(); err == nil {
					hooked.add(nc)
					_, _ = io.WriteString(nc, "HTTP/1.1 101 Switching Protocols\r\n\r\n")
				}
			})
			in, err := p.Upgrader().Conns("lines")
			if err != nil {
				log.Fatal(err)
			}
			go func() { // ends with the process
				for mc := range in {
					go lines(gen, mc.Conn, bufio.NewReader(io.MultiReader(bytes.NewReader(mc.State), mc.Conn)))
				}
			}()
		},
		Config: func(p *rig.Process, c *handoffhttp.Config) {
			if p.Stubborn {
				return
			}
			c.Goodbye = func(ctx context.Context, nc net.Conn) {
				// lines reads until then, and has nothing that it has not used.
				if err := nc.SetReadDeadline(time.Unix(1, 0)); err == nil {
					_ = p.Upgrader().SendConn(ctx, "lines", nc, nil)
				}
			}
		},
	}).Main()
}

// hooked are the connections that the function of RegisterOnShutdown ends.
type hooked struct {
	mu  sync.Mutex
	all []net.Conn
}

func (h *hooked) add(nc net.Conn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, nc)
}

func (h *hooked) end() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, nc := range h.all {
		_, _ = io.WriteString(nc, "goodbye\n")
		_ = nc.Close()
	}
}

// lines answers each line with the generation and the line.
func lines(gen string, nc net.Conn, in *bufio.Reader) {
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			if !isTimeout(err) {
				_ = nc.Close()
			}
			return // it moves
		}
		_, _ = io.WriteString(nc, gen+" "+line)
	}
}

// dialTo is a client of a service.
func dialTo(t *testing.T, addr string) *client {
	t.Helper()
	return (&line{tb: t, addr: addr}).dial()
}

// TestStreams upgrades a service in the midst of all that takes long: uploads,
// downloads, events, a connection of another protocol. None of it ends before its
// time, and each connection that can go on does so in the successor.
func TestStreams(t *testing.T) {
	t.Parallel()
	const size = 8 << 20 // more than socket buffers hold
	file := filepath.Join(t.TempDir(), "file")
	content := bytes.Repeat([]byte("0123456789abcdef"), size/16)
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Static: file})
		open := func(text string) (*client, *http.Response) {
			t.Helper()
			c := dialTo(t, s.Settings.Addr)
			c.send(text)
			res, err := http.ReadResponse(c.r, &http.Request{Method: "GET"})
			if err != nil {
				t.Fatal(err)
			}
			return c, res
		}
		upload, chunks := dialTo(t, s.Settings.Addr), dialTo(t, s.Settings.Addr)
		upload.send(fmt.Sprintf("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", size))
		upload.send(string(content[:size/2]))
		chunks.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
		chunk := fmt.Sprintf("%x\r\n%s\r\n", size/16, content[:size/16])
		for range 8 {
			chunks.send(chunk)
		}
		download, res := open("GET /static HTTP/1.1\r\nHost: h\r\n\r\n")
		got := make([]byte, size)
		if _, err := io.ReadFull(res.Body, got[:size/4]); err != nil {
			t.Fatal(err)
		}
		events, stream := open("GET /events HTTP/1.1\r\nHost: h\r\n\r\n")
		talk, _ := open("GET /lines HTTP/1.1\r\nHost: h\r\n\r\n")
		say := func(gen string) {
			t.Helper()
			talk.send("hello\n")
			if line, err := talk.r.ReadString('\n'); err != nil || line != gen+" hello\n" {
				t.Errorf("read %q, %v, want a line of generation %s", line, err, gen)
			}
		}
		say("1")

		m, err := s.Upgrade(ctx)
		if err != nil {
			t.Fatal(err)
		}
		if b, err := io.ReadAll(stream.Body); err != nil || string(b) != "data: first\n\ndata: last\n\n" {
			t.Errorf("events: %q, %v", b, err)
		}
		_ = download.SetDeadline(time.Now().Add(patience))
		if _, err := io.ReadFull(res.Body, got[size/4:]); err != nil || !bytes.Equal(got, content) {
			t.Errorf("download: %v, or other bytes", err)
		}
		upload.send(string(content[size/2:]))
		for range 8 {
			chunks.send(chunk)
		}
		chunks.send("0\r\n\r\n")
		for _, c := range []*client{upload, chunks} {
			res, err := c.receive("POST")
			if want := (response{"1", fmt.Sprint(size), false}); err != nil || res != want {
				t.Errorf("upload: %+v, %v, want %+v", res, err, want)
			}
		}
		end, err := s.Exit(ctx, m.PID)
		if err != nil {
			t.Fatal(err)
		}
		if l := end.Linger; l == nil || l.Open != 5 || l.Moved != 4 || len(l.Cut) != 0 {
			t.Errorf("linger: %+v, want 5 open, 4 moved", l)
		}
		stopped, err := s.Wait(ctx, "stopped")
		if err != nil {
			t.Fatal(err)
		}
		if r := stopped.Report; r == nil || r.Moved != 5 || r.Cut != 0 {
			t.Errorf("the upgrader's report: %+v, want 5 moved, the one with lines too", r)
		}
		say("2")
		for _, c := range []*client{upload, chunks, download, events} {
			c.send(post)
			if res, err := c.receive("POST"); err != nil || res.gen != "2" || res.close {
				t.Errorf("after the upgrade: %+v, %v, want a response of generation 2", res, err)
			}
			_ = c.Close()
		}
		_ = talk.Close()
		if _, err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestRegisterOnShutdown has the function end the connections that it knows when the
// linger begins, long before its limit, on listeners of either kind.
func TestRegisterOnShutdown(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		for _, protocol := range []string{"", "own tls"} {
			t.Run(protocol, func(t *testing.T) {
				ctx := bounded(t)
				s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Stubborn: true, Protocol: protocol})
				open := func() *bufio.Reader {
					t.Helper()
					var c net.Conn = dialTo(t, s.Settings.Addr)
					_ = c.SetDeadline(time.Now().Add(patience)) // Read tells
					if protocol != "" {
						c = tls.Client(c, &tls.Config{InsecureSkipVerify: true})
					}
					if _, err := io.WriteString(c, "GET /hooked HTTP/1.1\r\nHost: h\r\n\r\n"); err != nil {
						t.Fatal(err)
					}
					r := bufio.NewReader(c)
					if _, err := http.ReadResponse(r, nil); err != nil {
						t.Fatal(err)
					}
					return r
				}
				read := func(r *bufio.Reader) {
					t.Helper()
					if b, err := io.ReadAll(r); err != nil || string(b) != "goodbye\n" {
						t.Errorf("read %q, %v, want goodbye", b, err)
					}
				}
				first := open()
				m, err := s.Upgrade(ctx)
				if err != nil {
					t.Fatal(err)
				}
				read(first)
				end, err := s.Exit(ctx, m.PID)
				if err != nil {
					t.Fatal(err)
				}
				if l := end.Linger; l == nil || l.Open != 1 || len(l.Cut) != 0 {
					t.Errorf("linger: %+v, want one open and none cut", l)
				}
				second := open()
				if _, err := s.Stop(ctx); err != nil {
					t.Fatal(err)
				}
				read(second)
			})
		}
	})
}

// TestLimit has connections that don't end: they are cut at the linger limit,
// and both reports say how many and why.
func TestLimit(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Stubborn: true, Stay: true, Linger: 200 * time.Millisecond})
		idle := dialTo(t, s.Settings.Addr)
		if _, err := ask(idle); err != nil {
			t.Fatal(err)
		}
		cs := []*client{idle}
		for _, path := range []string{"/forever", "/lines", "/lines"} {
			c := dialTo(t, s.Settings.Addr)
			c.send("GET " + path + " HTTP/1.1\r\nHost: h\r\n\r\n")
			if _, err := http.ReadResponse(c.r, nil); err != nil {
				t.Fatal(err)
			}
			cs = append(cs, c)
		}
		m, err := s.Upgrade(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range cs {
			_ = c.SetDeadline(time.Now().Add(patience))
			if _, err := io.Copy(io.Discard, c.r); isTimeout(err) {
				t.Error("a connection outlives the limit")
			}
		}
		end, err := s.Exit(ctx, m.PID)
		if err != nil {
			t.Fatal(err)
		}
		stopped, err := s.Wait(ctx, "stopped")
		if err != nil {
			t.Fatal(err)
		}
		want := map[string]uint64{handoffhttp.CutIdle: 1, handoffhttp.CutRequest: 1, handoffhttp.CutHijacked: 2}
		if diff := cmp.Diff(want, end.Linger.Cut); diff != "" {
			t.Errorf("linger, cut (-want +got):\n%s", diff)
		}
		if r := stopped.Report; r == nil || r.Cut != 4 || !cmp.Equal(want, r.CutBy) {
			t.Errorf("the upgrader's report: %+v, want 4 cut: %v", r, want)
		}
		if _, err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestLimitWhileMoving has the linger limit come while connections are on their
// way to a successor that does not answer: they are cut, and counted.
func TestLimitWhileMoving(t *testing.T) {
	t.Parallel()
	const n = 20
	l := newLine(t, nil, nil)
	var cs []*client
	for range n {
		c := l.dial()
		c.send(post)
		c.want(1, "POST", "/b")
		cs = append(cs, c)
	}
	l.now.up.stuck = true
	g := l.replace()
	eventually(t, "all are offered", func() bool {
		g.up.mu.Lock()
		defer g.up.mu.Unlock()
		return g.up.sent == n
	})
	close(g.up.expired)
	r := g.gone(t)
	if diff := cmp.Diff(map[string]uint64{handoffhttp.CutIdle: n}, r.Cut); diff != "" || r.Moved != 0 {
		t.Errorf("%d moved, cut (-want +got):\n%s", r.Moved, diff)
	}
	for _, c := range cs {
		c.wantEOF()
	}
}

// TestCertificate has a new certificate on disk: the successor shows it, and
// resumes the sessions of its predecessor all the same.
func TestCertificate(t *testing.T) {
	t.Parallel()
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, Protocol: "tls"})
		sessions := tls.NewLRUClientSessionCache(1)
		handshake := func(cache tls.ClientSessionCache) tls.ConnectionState {
			t.Helper()
			c := dialTo(t, s.Settings.Addr)
			defer c.Close()
			tc := tls.Client(c.nc.(*net.TCPConn), &tls.Config{InsecureSkipVerify: true, ServerName: "h", ClientSessionCache: cache})
			_ = tc.SetDeadline(time.Now().Add(patience)) // Write tells
			if _, err := io.WriteString(tc, post); err != nil {
				t.Fatal(err)
			}
			if _, err := http.ReadResponse(bufio.NewReader(tc), nil); err != nil { // tickets come before it
				t.Fatal(err)
			}
			return tc.ConnectionState()
		}
		before := handshake(sessions)
		if before.DidResume {
			t.Error("the first handshake is not a full one")
		}
		if _, _, err := selfsigned.Write(s.Settings.Dir, "h"); err != nil {
			t.Fatal(err)
		}
		if same := handshake(nil); !same.PeerCertificates[0].Equal(before.PeerCertificates[0]) {
			t.Error("the certificate has changed before the upgrade")
		}
		if _, err := s.Upgrade(ctx); err != nil {
			t.Fatal(err)
		}
		if after := handshake(nil); after.PeerCertificates[0].Equal(before.PeerCertificates[0]) {
			t.Error("the successor has the old certificate")
		}
		if !handshake(sessions).DidResume {
			t.Error("the successor doesn't resume the predecessor's session")
		}
		if _, err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}
