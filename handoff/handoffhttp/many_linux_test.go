package handoffhttp_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// dialMany opens n connections with a request each.
func dialMany(tb testing.TB, addr string, n int, protocol string) []*client {
	tb.Helper()
	cs := make([]*client, n)
	each(tb, n, func(i int) error {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		if protocol == "tls" {
			nc = tls.Client(nc, &tls.Config{InsecureSkipVerify: true})
		}
		cs[i] = newClient(tb, nc)
		_, err = ask(cs[i])
		return err
	})
	tb.Cleanup(func() {
		for _, c := range cs {
			if c != nil {
				_ = c.Close()
			}
		}
	})
	return cs
}

// each calls f for 0 … n-1, several at a time.
func each(tb testing.TB, n int, f func(i int) error) {
	tb.Helper()
	const workers = 32
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := w; i < n; i += workers {
				if err := f(i); err != nil {
					tb.Errorf("client %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if tb.Failed() {
		tb.FailNow()
	}
}

func ask(c *client) (response, error) {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := c.nc.Write([]byte(post)); err != nil {
		return response{}, err
	}
	return c.receive("POST")
}

// TestManyIdle moves more connections than fit into a few batches, twice. Each
// continues where it was. Connections that no client has made don't move: in mode Drain
// the successor probes the kernel's steering when this process no longer accepts.
func TestManyIdle(t *testing.T) {
	t.Parallel()
	n := testenv.Times(400, 1200)
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode})
		cs := dialMany(t, s.Settings.Addr, n, "")
		for gen := 2; gen <= 3; gen++ {
			m, err := s.Upgrade(ctx)
			if err != nil {
				t.Fatal(err)
			}
			end, err := s.Exit(ctx, m.PID)
			if err != nil {
				t.Fatal(err)
			}
			if l := end.Linger; l == nil || l.Moved != n || l.Stayed != 0 || len(l.Cut) != 0 {
				t.Errorf("linger: %+v, want %d moved", l, n)
			}
			stopped, err := s.Wait(ctx, "stopped")
			if err != nil {
				t.Fatal(err)
			}
			if r := stopped.Report; r == nil || r.Open != uint64(n) || r.Moved != uint64(n) || r.Cut != 0 || len(r.CutBy) != 0 {
				t.Errorf("the upgrader's report: %+v, want %d open and moved", r, n)
			}
			each(t, n, func(i int) error {
				res, err := ask(cs[i])
				if err == nil && (res.gen != fmt.Sprint(gen) || res.close) {
					err = fmt.Errorf("response %+v, want one of generation %d", res, gen)
				}
				return err
			})
		}
		for _, c := range cs {
			_ = c.Close() // or the end would wait for them
		}
		if _, err := s.Stop(ctx); err != nil {
			t.Fatal(err)
		}
	})
}

// TestShortOfFiles has a successor with room for a few connections: those that
// it doesn't take stay, end with their next response, and the report says so. No
// request is lost.
func TestShortOfFiles(t *testing.T) {
	t.Parallel()
	const n, limit = 300, 100
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		ctx := bounded(t)
		s := startService(t, rig.Settings{How: rig.Baton, Mode: mode, NoFile: limit, Verbose: true})
		cs := dialMany(t, s.Settings.Addr, n, "")
		m, err := s.Upgrade(ctx)
		if err != nil {
			t.Fatal(err)
		}
		// What doesn't move is offered four times; then a response asks to close.
		left := make(map[int]bool)
		for i := range n {
			left[i] = true
		}
		moved := 0
		for len(left) > 0 {
			for i := range left {
				res, err := ask(cs[i])
				switch {
				case err != nil:
					t.Fatalf("client %d: %v", i, err)
				case res.gen == "2":
					moved++
					delete(left, i)
				case res.close:
					_ = cs[i].Close() // which makes room for others
					delete(left, i)
				}
			}
		}
		end, err := s.Exit(ctx, m.PID)
		if err != nil {
			t.Fatal(err)
		}
		l := end.Linger
		if l == nil || l.Stayed == 0 || l.Moved+l.Stayed != n || l.Moved != moved || !strings.Contains(l.Why, "descriptors") || len(l.Cut) != 0 {
			t.Errorf("linger: %+v, want %d moved or stayed, none cut; %d answered by the successor", l, n, moved)
		}
		// The two have talked to the end.
		eventually(t, "the successor has the predecessor's account", func() bool {
			return strings.Contains(s.Log(), "predecessor has ended") && strings.Contains(s.Log(), "clean=true")
		})
		t.Logf("%+v", l)
	})
}

// idleConns returns 10,000 for each of some services, or as many as the limit of
// descriptors allows.
func idleConns(b *testing.B, services int) int {
	b.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		b.Fatal(err)
	}
	return min(10000, (int(limit.Cur)-200)/services)
}

// moveIdle upgrades a service with n idle connections, and returns the predecessor's last
// message and how long it has run since the commit.
func moveIdle(ctx context.Context, b *testing.B, s *rig.Service, n int) (end rig.Message, whole time.Duration) {
	b.Helper()
	m, err := s.Upgrade(ctx)
	if err != nil {
		b.Fatal(err)
	}
	if end, err = s.Exit(ctx, m.PID); err != nil {
		b.Fatal(err)
	}
	if end.Linger == nil || end.Linger.Moved != n {
		b.Fatalf("linger: %+v, want %d moved", end.Linger, n)
	}
	return end, end.Time.Sub(m.Time)
}

// BenchmarkMoveIdle moves 10,000 idle connections, or as many as the limit of
// descriptors allows. It measures how long the predecessor runs after the commit, and
// how much memory it takes.
func BenchmarkMoveIdle(b *testing.B) {
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		for _, n := range []int{100, idleConns(b, 1)} {
			b.Run(fmt.Sprintf("%s/%d", mode, n), func(b *testing.B) {
				ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
				defer cancel()
				s := startService(b, rig.Settings{How: rig.Baton, Mode: mode})
				dialMany(b, s.Settings.Addr, n, "")
				runtime.GC()
				var linger, whole time.Duration
				var grown int64
				for b.Loop() {
					end, took := moveIdle(ctx, b, s, n)
					linger += end.Linger.Took
					whole += took
					grown = max(grown, end.Grown)
				}
				b.ReportMetric(float64(linger.Milliseconds())/float64(b.N), "ms-moving/op")
				b.ReportMetric(float64(whole.Milliseconds())/float64(b.N), "ms-commit-to-exit/op")
				b.ReportMetric(float64(grown)/float64(n), "B-grown/conn")
			})
		}
	}
}

// BenchmarkMoveIdleTLS moves 10,000 idle connections over TLS and, in turn, as many
// without. The metric "ratio" is the median of the times of the first over the second.
func BenchmarkMoveIdleTLS(b *testing.B) {
	protocols := []string{"", "tls"}
	n := idleConns(b, len(protocols))
	for _, mode := range []handoff.Mode{handoff.Inherit, handoff.Takeover, handoff.Drain} {
		b.Run(fmt.Sprintf("%s/%d", mode, n), func(b *testing.B) {
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Minute)
			defer cancel()
			services := make([]*rig.Service, len(protocols))
			for i, protocol := range protocols {
				services[i] = startService(b, rig.Settings{How: rig.Baton, Mode: mode, Protocol: protocol, MoveTLS: true})
				dialMany(b, services[i].Settings.Addr, n, protocol)
			}
			runtime.GC()
			var took [2][]float64 // seconds
			var ratios []float64
			var grown int64
			for b.Loop() {
				var round [2]float64
				for i, s := range services {
					end, whole := moveIdle(ctx, b, s, n)
					round[i] = whole.Seconds()
					took[i] = append(took[i], round[i])
					if protocols[i] == "tls" {
						grown = max(grown, end.Grown)
					}
				}
				ratios = append(ratios, round[1]/round[0])
			}
			middle := func(all []float64) float64 { return slices.Sorted(slices.Values(all))[len(all)/2] }
			b.ReportMetric(1000*middle(took[0]), "plain-ms")
			b.ReportMetric(1000*middle(took[1]), "tls-ms")
			b.ReportMetric(1000*slices.Max(took[1]), "tls-worst-ms")
			b.ReportMetric(middle(ratios), "ratio")
			b.ReportMetric(float64(grown)/float64(n), "tls-B-grown/conn")
			b.ReportMetric(0, "ns/op")
		})
	}
}
