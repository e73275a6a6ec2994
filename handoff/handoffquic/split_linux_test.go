package handoffquic_test

import (
	"context"
	"crypto/tls"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffquic/internal/rig"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/internal/testservice"
)

// upgraded runs a service that is replaced once, and calls before and after, with the
// process IDs, in its folder.
func upgraded(t *testing.T, s rig.Service, before func(dir string, first int), after func(dir string, first, second int)) {
	t.Helper()
	if s.Mode == "" {
		s.Mode = handoff.Takeover
	}
	var first int
	r := rig.Run{Service: s, Upgrades: 1}
	r.Between = func(n int) error {
		pid := pidOf(t, r.Service.Dir)
		if n == 0 {
			first = pid
			before(r.Service.Dir, first)
		} else {
			after(r.Service.Dir, first, pid)
		}
		return nil
	}
	load(t, &r)
}

// isRetry reports whether p is a Retry packet (RFC 9000, section 17.2.5).
func isRetry(p []byte) bool { return len(p) > 0 && p[0]&0xf0 == 0xf0 }

// dialOn opens a connection on a wire.
func dialOn(t *testing.T, w *wire, dir string, conf *tls.Config, q *quic.Config) (*client, error) {
	t.Helper()
	tr := &quic.Transport{Conn: w}
	t.Cleanup(func() { _ = tr.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	c, err := tr.Dial(ctx, serverOf(t, dir), conf, q)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { _ = c.CloseWithError(0, "") })
	return &client{c, (&http3.Transport{}).NewClientConn(c)}, nil
}

// TestSplitHandshake has the switch come between two packets of a handshake: of a
// ClientHello that does not fit into one, and of a Retry and the answer to it.
func TestSplitHandshake(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	t.Parallel()
	for name, c := range map[string]struct {
		service rig.Service
		wire    func(held func()) *wire
	}{
		"client hello": {rig.Service{}, func(held func()) *wire {
			n := 0
			return &wire{sent: func([]byte) bool {
				if n++; n == 2 {
					held()
				}
				return n == 1
			}}
		}},
		"retry": {rig.Service{Retry: true}, func(held func()) *wire {
			var mu sync.Mutex
			retried := false
			return &wire{
				received: func(p []byte) {
					mu.Lock()
					defer mu.Unlock()
					retried = retried || isRetry(p)
				},
				sent: func([]byte) bool {
					mu.Lock()
					defer mu.Unlock()
					if retried {
						held()
					}
					return !retried
				},
			}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const clients = 8
			var holding, ended sync.WaitGroup
			wires, errs := make([]*wire, clients), make([]error, clients)
			opened := make([]*client, clients)
			upgraded(t, c.service, func(dir string, _ int) {
				conf := tlsOf(t, dir)
				for i := range clients {
					holding.Add(1)
					wires[i] = newWire(t, c.wire(sync.OnceFunc(holding.Done)))
					ended.Go(func() { opened[i], errs[i] = dialOn(t, wires[i], dir, conf, &quic.Config{MaxIdleTimeout: time.Minute}) })
				}
				holding.Wait()
			}, func(_ string, first, second int) {
				for _, w := range wires {
					w.release(t)
				}
				ended.Wait()
				by := make(map[int]int)
				for i, c := range opened {
					if errs[i] != nil {
						t.Errorf("handshake %d: %v", i, errs[i])
						continue
					}
					pid, err := c.ask()
					if err != nil || pid != first && pid != second {
						t.Errorf("connection %d: pid %d, %v", i, pid, err)
					}
					by[pid]++
					_ = c.conn.CloseWithError(0, "")
				}
				t.Logf("%d handshakes with the predecessor, %d with the successor", by[first], by[second])
			})
		})
	}
}

// tokens is a store that has a test see when the server has sent one.
type tokens struct {
	quic.TokenStore
	put chan struct{} // capacity 1
}

func (s *tokens) Put(key string, token *quic.ClientToken) {
	s.TokenStore.Put(key, token)
	notify(s.put)
}

// tickets is the same for TLS sessions.
type tickets struct {
	tls.ClientSessionCache
	put chan struct{} // capacity 1
}

func (s *tickets) Put(key string, cs *tls.ClientSessionState) {
	s.ClientSessionCache.Put(key, cs)
	if cs != nil {
		notify(s.put)
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(time.Minute):
		t.Fatalf("%s: not within a minute", what)
	}
}

// TestTokenAfterUpgrade validates the client's address by a token of the predecessor: the
// successor asks for no Retry.
func TestTokenAfterUpgrade(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	t.Parallel()
	store := &tokens{quic.NewLRUTokenStore(1, 10), make(chan struct{}, 1)}
	retries := func(dir string, store quic.TokenStore, pid int) int {
		n := make(chan int, 100)
		w := newWire(t, &wire{received: func(p []byte) {
			if isRetry(p) {
				n <- 1
			}
		}})
		c, err := dialOn(t, w, dir, tlsOf(t, dir), &quic.Config{TokenStore: store})
		if err != nil {
			t.Fatal(err)
		}
		c.want(t, "a new connection", pid)
		got := len(n)
		if store, ok := store.(*tokens); ok {
			await(t, "a token", store.put)
		}
		_ = c.conn.CloseWithError(0, "")
		return got
	}
	upgraded(t, rig.Service{Retry: true}, func(dir string, first int) {
		if retries(dir, store, first) == 0 {
			t.Error("no Retry at first")
		}
	}, func(dir string, _, second int) {
		if n := retries(dir, store, second); n != 0 {
			t.Errorf("%d Retry packets with a token of the predecessor, want 0", n)
		}
		if retries(dir, nil, second) == 0 {
			t.Error("no Retry without a token: the test can't fail")
		}
	})
}

// TestZeroRTT resumes with the successor, by 0-RTT, a session that began with the
// predecessor.
func TestZeroRTT(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			cache := &tickets{tls.NewLRUClientSessionCache(10), make(chan struct{}, 1)}
			early := func(dir string, pid int) bool {
				conf := tlsOf(t, dir)
				conf.ClientSessionCache = cache
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				qc, err := quic.DialAddrEarly(ctx, serverOf(t, dir).String(), conf, nil)
				if err != nil {
					t.Fatal(err)
				}
				c := &client{qc, (&http3.Transport{}).NewClientConn(qc)}
				if got, err := c.send(http3.MethodGet0RTT, nil); got != pid || err != nil {
					t.Errorf("pid %d, %v, want %d", got, err, pid)
				}
				await(t, "the handshake", qc.HandshakeComplete())
				used := qc.ConnectionState().Used0RTT
				await(t, "a ticket", cache.put)
				_ = qc.CloseWithError(0, "")
				return used
			}
			upgraded(t, rig.Service{Mode: mode}, func(dir string, first int) {
				if early(dir, first) {
					t.Error("0-RTT without a session")
				}
			}, func(dir string, _, second int) {
				if !early(dir, second) {
					t.Error("the successor has not accepted the 0-RTT of a session with the predecessor")
				}
			})
		})
	}
}

// TestMoves has clients change their address after an upgrade, by a NAT and by migration:
// the predecessor serves them on.
func TestMoves(t *testing.T) {
	testenv.Long(t, "TestUpgrade")
	t.Parallel()
	w := newWire(t, new(wire))
	var nat, migrates *client
	upgraded(t, rig.Service{}, func(dir string, first int) {
		var err error
		if nat, err = dialOn(t, w, dir, tlsOf(t, dir), nil); err != nil {
			t.Fatal(err)
		}
		// A connection of quic.DialAddr has no ID of the client's, and can't migrate.
		if migrates, err = dialOn(t, newWire(t, new(wire)), dir, tlsOf(t, dir), nil); err != nil {
			t.Fatal(err)
		}
		nat.want(t, "before", first)
		migrates.want(t, "before", first)
	}, func(dir string, first, second int) {
		for range 3 {
			before := w.LocalAddr().String()
			w.rebind(t)
			if w.LocalAddr().String() == before {
				t.Fatal("the client has its old port: the test can't fail")
			}
			nat.want(t, "after a NAT has changed the port", first)
			tr := &quic.Transport{Conn: udp(t)}
			defer tr.Close()
			p, err := migrates.conn.AddPath(tr)
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			if err := p.Probe(ctx); err != nil {
				t.Fatal(err)
			}
			if err := p.Switch(); err != nil {
				t.Fatal(err)
			}
			migrates.want(t, "after a migration", first)
		}
		newClient(t, dir).want(t, "a new connection", second)
		for _, c := range []*client{nat, migrates} {
			_ = c.conn.CloseWithError(0, "")
		}
	})
}

// again starts a process of the service in a folder, of which none serves, and returns its
// number when it serves.
func again(t *testing.T, dir string, mode handoff.Mode) int {
	t.Helper()
	s := rig.Service{Dir: dir, Address: serverOf(t, dir).String(), Style: rig.Baton, Mode: mode, Linger: time.Minute}
	cmd := testmain.Command(t, "service")
	env, err := s.Environ()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(cmd.Environ(), env)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // load may have ended it
		_ = cmd.Wait()
	})
	awaitEvent(t, dir, "owner", cmd.Process.Pid)
	return cmd.Process.Pid
}

// TestAnew kills the process that serves while its predecessor lingers: a process that
// starts anew serves, and the connection of the predecessor goes on.
func TestAnew(t *testing.T) {
	testenv.Long(t, "handoff.TestFlowsAfterCrash")
	t.Parallel()
	for _, mode := range []handoff.Mode{handoff.Takeover, handoff.Inherit} {
		t.Run(string(mode), func(t *testing.T) {
			t.Parallel()
			var old *client
			upgraded(t, rig.Service{Mode: mode}, func(dir string, first int) {
				old = newClient(t, dir)
				old.want(t, "before", first)
			}, func(dir string, first, second int) {
				newClient(t, dir).want(t, "after the upgrade", second)
				awaitEvent(t, dir, "lingering", first)
				testservice.Crash(t, second)
				began := time.Now()
				third := again(t, dir, mode)
				newClient(t, dir).want(t, "a new connection", third)
				t.Logf("a new connection is served %v after the crash", time.Since(began))
				old.want(t, "in the linger", first)
				_ = old.conn.CloseWithError(0, "")
			})
		})
	}
}
