package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/internal/load"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// freeAddress returns an address that is free at the moment, for apps that need it
// before baton run binds it.
func freeAddress(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.66.5.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// TestRunPython upgrades and kills a server in Python under load. The health check
// probes the socket that both generations share.
func TestRunPython(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "python3")
	app, err := filepath.Abs("testdata/app.py")
	if err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	for name, ready := range map[string][]string{
		"http": {"--ready-http", "http://" + address + "/healthz"},
		"tcp":  {"--ready-tcp", address},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "http" {
				testenv.Long(t, "TestRunPython")
			}
			flags := append([]string{"--listen", "tcp://" + address, "--stop-timeout", "1m"}, ready...)
			r := runApp(t, nil, flags, "python3", app)
			r.address()
			p := press(t, address, load.HTTP)
			r.await("ready")
			serving := 0
			for range testenv.Times(1, 3) {
				p.more(100)
				r.signal(syscall.SIGUSR2)
				l := r.await("upgraded")
				serving = l.PID
				generation := fmt.Sprint(l.Generation)
				p.until("generation "+generation, func(s load.Stats) bool { return s.Targets["http"].Versions[generation] > 0 })
			}
			s := p.clean()
			t.Logf("upgrades of a Python app, %d requests, %d failed", s.Connections, s.Failed)

			// Connections that arrive during a crash are served.
			p = press(t, address, load.HTTP)
			p.more(50)
			if err := syscall.Kill(serving, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r.await("ready")
			p.more(50)
			s = p.end()
			if s.Failed > 4 || s.Failures[load.Refused] > 0 || s.Failures[load.Timeout] > 0 {
				t.Errorf("%d requests failed in a crash, %v, want at most 4, none refused: %+v", s.Failed, s.Failures, s.Samples)
			}
			t.Logf("a crash of a Python app, %d requests, %d failed, %d refused", s.Connections, s.Failed, s.Failures[load.Refused])
			r.stop()
		})
	}
}

// TestRunNginx passes nginx its sockets as a predecessor of its own would (NGINX=),
// upgrades it under load, and kills its master.
func TestRunNginx(t *testing.T) {
	t.Parallel()
	testenv.Need(t, "nginx")
	address := freeAddress(t)
	dir := testenv.ShortDir(t)
	conf := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, `
		daemon off;
		worker_processes 2;
		pid %[1]s/pid;
		error_log stderr;
		events {}
		http {
			access_log off;
			client_body_temp_path %[1]s/body;
			proxy_temp_path %[1]s/proxy;
			fastcgi_temp_path %[1]s/fastcgi;
			uwsgi_temp_path %[1]s/uwsgi;
			scgi_temp_path %[1]s/scgi;
			server {
				listen %[2]s;
				location / { return 200 "hello"; }
			}
		}`, dir, address), 0o600); err != nil {
		t.Fatal(err)
	}
	r := runApp(t, nil, []string{"--listen", "tcp://" + address, "--nonblock", "--ready-tcp", address, "--stop-signal", "QUIT", "--stop-timeout", "1m"},
		"env", "NGINX=3;", "nginx", "-p", dir, "-e", "stderr", "-c", conf)
	r.address()
	r.await("ready")
	g := newGetter("http://" + address + "/")
	defer g.end()
	var master int
	for range testenv.Times(1, 3) {
		g.more(t, 100)
		r.signal(syscall.SIGUSR2)
		master = r.await("upgraded").PID
		r.await("ended")
	}
	g.more(t, 100)
	if failed := g.failed.Load(); failed > 0 {
		t.Errorf("%d of %d requests failed in upgrades: %v", failed, g.done.Load(), g.first.Load())
	}
	t.Logf("upgrades of nginx, %d requests, %d failed", g.done.Load(), g.failed.Load())

	// The master is killed. baton kills its workers too: they would serve on without a
	// master.
	if err := syscall.Kill(master, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.await("ready")
	g.more(t, 100)
	g.end()
	if failed := g.failed.Load(); failed > 4 || g.refused.Load() > 0 {
		t.Errorf("%d requests failed in a crash, %d refused, want at most 4, none refused: %v", failed, g.refused.Load(), g.first.Load())
	}
	t.Logf("a crash of nginx, %d failed, %d refused", g.failed.Load(), g.refused.Load())
	r.stop()
}

// getter requests a URL in a loop, each time on a new connection, and never retries.
type getter struct {
	done, failed, refused atomic.Int64

	first atomic.Value // of the errors
	stop  chan struct{}
	once  sync.Once
	wg    sync.WaitGroup
}

func newGetter(url string) *getter {
	g := &getter{stop: make(chan struct{})}
	for range 4 {
		g.wg.Go(func() { // ends with stop
			client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
			defer client.CloseIdleConnections()
			for {
				select {
				case <-g.stop:
					return
				case <-time.After(2 * time.Millisecond): // a pause between two requests
				}
				if err := get(&client, url); err != nil {
					g.failed.Add(1)
					if load.Classify(err) == load.Refused {
						g.refused.Add(1)
					}
					g.first.CompareAndSwap(nil, err.Error())
				}
				g.done.Add(1)
			}
		})
	}
	return g
}

func get(client *http.Client, url string) error {
	resp, err := client.Get(url)
	if err != nil {
		return err
	}
	defer resp.Body.Close() // read to its end
	text, err := io.ReadAll(resp.Body)
	if err == nil && string(text) != "hello" {
		err = fmt.Errorf("answer %q", text)
	}
	return err
}

// more waits for n more requests.
func (g *getter) more(t *testing.T, n int64) {
	t.Helper()
	for end, want := time.Now().Add(2*patience), g.done.Load()+n; g.done.Load() < want; {
		if time.Now().After(end) {
			t.Fatal("the clients get no answers")
		}
		<-time.After(5 * time.Millisecond) // no event to wait for
	}
}

func (g *getter) end() {
	g.once.Do(func() { close(g.stop) })
	g.wg.Wait()
}
