package servers_test

import (
	"context"
	"fmt"
	"net/http"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
	"github.com/seed-11c92bf9/baton/integration/internal/witness"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
)

func httpServer(set settings) *http.Server {
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, "hello")
	}), Protocols: new(http.Protocols)}
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(!set.Plain)
	return srv
}

func serveHTTP(ctx context.Context, set settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	return handoffhttp.Run(ctx, up, httpServer(set), ln)
}

// serveShutdown is the control.
func serveShutdown(ctx context.Context, set settings, up *handoff.Upgrader, ln *handoff.Listener) error {
	srv := httpServer(set)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }()
	if err := up.Ready(); err != nil {
		return err
	}
	<-up.Done()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	_ = srv.Shutdown(ctx)
	<-served
	return up.Shutdown(ctx)
}

// TestClients upgrades a service under clients of other projects, and reads in their
// output how many requests failed.
func TestClients(t *testing.T) {
	const rounds = 20 // one is enough unless the machine is very busy
	seconds := 4
	if testing.Short() {
		seconds = 1
	}
	for _, c := range []struct {
		name   string
		args   []string
		failed *regexp.Regexp // what it says of failures; absent means none
		ok     *regexp.Regexp
		http2  bool         // a witness counts
		quick  handoff.Mode // the one of a short run
	}{
		{
			"wrk",
			[]string{"-t2", "-c64", fmt.Sprintf("-d%ds", seconds)},
			regexp.MustCompile(`Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)`),
			regexp.MustCompile(`(\d+) requests in`), false, handoff.Inherit,
		},
		{
			"ab",
			[]string{"-k", "-r", "-c", "64", "-t", strconv.Itoa(seconds), "-n", "10000000"},
			regexp.MustCompile(`Failed requests:\s+(\d+)`),
			regexp.MustCompile(`Complete requests:\s+(\d+)`), false, handoff.Takeover,
		},
		{
			// It never opens a connection again: the first upgrade ends the load.
			"h2load",
			[]string{"-c16", "-m8", "-t1", fmt.Sprintf("-D%d", seconds)},
			nil,
			regexp.MustCompile(`(\d+) succeeded`), true, handoff.Drain,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			path, err := exec.LookPath(c.name)
			if err != nil {
				testmain.Skipped()
				t.Skipf("%v: apt-get install wrk apache2-utils nghttp2-client", err)
			}
			run := func(t *testing.T, helper string, mode handoff.Mode) (ok, failed int) {
				s := start(t, helper, settings{Mode: mode, Plain: !c.http2})
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				addr := s.addr
				var w *witness.Witness
				if c.http2 {
					var err error
					if w, err = witness.New(s.addr); err != nil {
						t.Fatal(err)
					}
					defer w.Close()
					addr = w.Addr()
				}
				cmd := exec.CommandContext(ctx, path, append(c.args, "http://"+addr+"/")...)
				var out strings.Builder
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				done := make(chan error, 1)
				go func() { done <- cmd.Wait() }()
				tick := time.NewTicker(time.Duration(seconds) * time.Second / 8)
				defer tick.Stop()
				upgrades := 0
				for running := true; running; {
					select {
					case err := <-done:
						if err != nil {
							t.Logf("%s: %v", c.name, err)
						}
						running = false
					case <-tick.C:
						if upgrades < 5 {
							s.upgrade()
							upgrades++
						}
					}
				}
				if upgrades == 0 {
					t.Error("no upgrade")
				}
				ok = sum(c.ok, out.String())
				if w != nil {
					count, err := w.Close()
					if err != nil {
						t.Error(err)
					}
					failed = count.Failed()
				} else {
					failed = sum(c.failed, out.String())
				}
				if ok == 0 {
					t.Logf("no request: %s", out.String())
				}
				t.Logf("%s, %v: %d upgrades, %d requests, %d failed", helper, mode, upgrades, ok, failed)
				if failed > 0 {
					t.Logf("%s", out.String())
				}
				return ok, failed
			}
			eachMode(t, func(t *testing.T, mode handoff.Mode) {
				if mode != c.quick {
					testenv.Long(t, "TestClients")
				}
				for range rounds {
					ok, failed := run(t, "http", mode)
					if failed != 0 {
						t.Errorf("%d requests, %d failed", ok, failed)
					}
					if ok > 0 {
						return
					}
				}
				t.Error("no request")
			})
			t.Run("control", func(t *testing.T) {
				if c.name != "wrk" {
					testenv.Long(t, "TestClients")
				}
				total := 0
				for range rounds {
					ok, failed := run(t, "shutdown", handoff.Takeover)
					if failed > 0 {
						return
					}
					total += ok
				}
				t.Errorf("http.Server.Shutdown lost none of %d requests: the test proves nothing", total)
			})
		})
	}
}

// sum adds what the groups of re found.
func sum(re *regexp.Regexp, text string) int {
	total := 0
	if m := re.FindStringSubmatch(text); m != nil {
		for _, g := range m[1:] {
			n, _ := strconv.Atoi(g)
			total += n
		}
	}
	return total
}
