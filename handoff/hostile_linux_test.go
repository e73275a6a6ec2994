package handoff_test

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestHostilePeer has peers break every rule at the control socket of a service.
// Each gets an end, and costs the service a connection and nothing more.
func TestHostilePeer(t *testing.T) {
	cases := []struct {
		name   string
		act    func(*testing.T, *rawPeer)
		reason failure.Reason // of the refusal; None where a close is answer enough
		failed string         // the sentinel of the upgrade that it began
	}{
		{name: "garbage", act: func(_ *testing.T, p *rawPeer) {
			b := make([]byte, 64<<10)
			_, _ = rand.NewChaCha8([32]byte{1}).Read(b)
			p.write(b)
		}},
		{name: "nothing", act: func(t *testing.T, p *rawPeer) {
			if err := p.uc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "half a header", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 0)[:5])
			if err := p.uc.CloseWrite(); err != nil {
				t.Fatal(err)
			}
		}},
		{name: "length beyond the limit", act: func(_ *testing.T, p *rawPeer) {
			p.write(header(fdpass.MaxPayload+1, wire.TypeHello, 0))
		}},
		{name: "254 descriptors announced", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 254), nulls(t, 253)...)
		}},
		{name: "descriptors that were not announced", act: func(t *testing.T, p *rawPeer) {
			p.write(header(0, wire.TypeHello, 0), nulls(t, 253)...)
		}},
		{name: "fewer descriptors than announced", act: func(t *testing.T, p *rawPeer) {
			p.write(append(header(1, wire.TypeHello, 3), 0), nulls(t, 1)...)
		}},
		{name: "descriptors within a payload", act: func(t *testing.T, p *rawPeer) {
			p.write(header(100, wire.TypeHello, 0))
			p.write([]byte{1}, nulls(t, 253)...)
		}},
		{name: "malformed Hello", act: func(_ *testing.T, p *rawPeer) {
			p.write(append(header(3, wire.TypeHello, 0), 1, 200, 1))
		}},
		{name: "no Hello", act: func(_ *testing.T, p *rawPeer) { p.send(&wire.Ready{}) }, reason: failure.Unsupported},
		{name: "inherited by no child", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.Via = wire.ViaInherit }))
		}, reason: failure.NoUpgrade},
		{name: "too new", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = wire.MaxVersion+1, wire.MaxVersion+9 }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "too old", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = 0, wire.MinVersion-1 }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "versions upside down", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(func(h *wire.Hello) { h.MinVersion, h.MaxVersion = wire.MaxVersion+1, wire.MinVersion }))
		}, reason: failure.Version, failed: "ErrVersion"},
		{name: "Hello and gone", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.close()
		}, failed: "ErrSuccessorDied"},
		{name: "Hello with descriptors, and gone", act: func(t *testing.T, p *rawPeer) {
			p.send(hello(nil), nulls(t, 253)...)
			if m, err := p.recv(); err != nil || m.Type() != wire.TypeWelcome {
				t.Errorf("answer to a Hello: %T, %v, want a Welcome", m, err)
			}
			p.close()
		}, failed: "ErrSuccessorDied"},
		{name: "Hello and garbage", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.write(header(1<<30, 7, 9))
		}, failed: "ErrProtocol"},
		{name: "Hello twice", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(hello(nil))
		}, failed: "ErrProtocol"},
		{name: "Verified before the sockets", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(&wire.Verified{})
		}, failed: "ErrProtocol"},
		{name: "Abort", act: func(_ *testing.T, p *rawPeer) {
			p.send(hello(nil))
			p.send(&wire.Abort{Text: strings.Repeat("x", 2*wire.MaxText)})
		}, failed: "ErrAborted"},
	}
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		mustAnswer(t, addr, 1)
		pid := s.pid()
		before := openFiles(t, pid)
		for _, c := range cases {
			t.Run(c.name, func(t *testing.T) {
				p := dialRaw(t, controlOf(s))
				c.act(t, p)
				if reason := p.rest(); reason != c.reason && (c.reason != failure.None || reason != failure.Closed) {
					t.Errorf("the refusal: %v, want %v", reason, c.reason)
				}
				if c.failed != "" {
					if m := s.wait("upgrade-failed"); !slices.Equal(m.Is, []string{c.failed}) {
						t.Errorf("upgrade: %v %s, want %s", m.Is, m.Err, c.failed)
					}
				}
				p.close()
				mustAnswer(t, addr, 1)
			})
		}
		eventually(t, "the descriptors of the service are as before, but for a pidfd of the peer's process", func() bool {
			return len(openFiles(t, pid)) <= len(before)+1
		})
		s.upgrade()
		mustAnswer(t, addr, 2)
		s.stop()
	})
}

// TestEndlessInput connects peers that send without end.
func TestEndlessInput(t *testing.T) {
	t.Parallel()
	// as much as the peer takes before it closes.
	flood := func(p *rawPeer, b []byte) {
		for {
			if _, err := p.uc.Write(b); err != nil {
				if errors.Is(err, os.ErrDeadlineExceeded) {
					p.tb.Errorf("the service reads on after %v", patience)
				}
				return
			}
		}
	}
	for name, act := range map[string]func(*rawPeer){
		"bytes":    func(p *rawPeer) { flood(p, make([]byte, 1<<20)) },
		"payload":  func(p *rawPeer) { p.write(header(fdpass.MaxPayload, wire.TypeHello, 0)); flood(p, make([]byte, 1<<10)) },
		"unknown":  func(p *rawPeer) { flood(p, append(header(1<<10, 60000, 0), make([]byte, 1<<10)...)) },
		"Hello...": func(p *rawPeer) { p.send(hello(nil)); flood(p, append(header(8, 60000, 0), make([]byte, 8)...)) },
		"Alive...": func(p *rawPeer) { p.send(hello(nil)); flood(p, header(0, wire.TypeAlive, 0)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
			addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
			mustAnswer(t, addr, 1)
			before := peakMemory(t, s.pid())
			p := dialRaw(t, controlOf(s))
			act(p)
			p.rest()
			if grown := peakMemory(t, s.pid()) - before; grown > 64<<20 {
				t.Errorf("the service has taken %d MiB for it", grown>>20)
			}
			mustAnswer(t, addr, 1)
			// Its upgrade, if it has begun one, is over or ends now.
			eventually(t, "an upgrade can begin", func() bool {
				s.signal(syscall.SIGUSR2)
				m := s.waitFor("the end of an upgrade", func(m message) bool {
					return m.Kind == "committed" || m.Kind == "upgrade-failed"
				})
				return m.Kind == "committed"
			})
			mustAnswer(t, addr, 2)
			s.stop()
		})
	}
}

// peakMemory is VmHWM of proc_pid_status(5), in bytes.
func peakMemory(tb testing.TB, pid int) int {
	tb.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		tb.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(b), "VmHWM:")
	if !ok {
		tb.Fatalf("no VmHWM in the status of %d", pid)
	}
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		tb.Fatal(err)
	}
	return n << 10
}

// TestSilentPeers has as many peers say nothing as are served at once, and more,
// while the service is upgraded.
func TestSilentPeers(t *testing.T) {
	for _, n := range []int{1, 64, 200} {
		t.Run(strconv.Itoa(n), func(t *testing.T) {
			if n < 200 {
				testenv.Long(t, "TestSilentPeers")
			}
			eachMode(t, func(t *testing.T, mode handoff.Mode) {
				s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
				addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
				for range n {
					dialRaw(t, controlOf(s))
				}
				s.upgrade()
				mustAnswer(t, addr, 2)
				s.stop()
			})
		})
	}
}

// TestSilentSuccessor has a peer say Hello and nothing more: the upgrade that it
// began ends with a timeout, and the next one may begin.
func TestSilentSuccessor(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Hang: soon}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	p := dialRaw(t, controlOf(s))
	p.send(hello(nil))
	s.wait("upgrade-started")
	p2 := dialRaw(t, controlOf(s))
	p2.send(hello(nil))
	if reason := p2.rest(); reason != failure.InProgress {
		t.Errorf("the refusal meanwhile: %v, want %v", reason, failure.InProgress)
	}
	mustAnswer(t, addr, 1)
	if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrTimeout") {
		t.Errorf("upgrade: %v %s, want ErrTimeout", m.Is, m.Err)
	}
	p.rest()
	s.upgrade()
	mustAnswer(t, addr, 2)
	s.stop()
}

// TestSilentWarming has a peer acknowledge what it was not sent, and never come
// to an end of its warming up.
func TestSilentWarming(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}, Ready: 500 * time.Millisecond, Hang: soon}).start()
	addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
	p := dialRaw(t, controlOf(s))
	p.send(hello(nil))
	p.send(&wire.Ack{Seq: 77, Taken: 200})
	if m := s.wait("upgrade-failed"); !slices.Contains(m.Is, "ErrTimeout") && !slices.Contains(m.Is, "ErrProtocol") {
		t.Errorf("upgrade: %v %s, want ErrTimeout or ErrProtocol", m.Is, m.Err)
	}
	p.rest()
	mustAnswer(t, addr, 1)
	s.stop()
}

// join calls New in this process, in mode Takeover, and closes the result.
func join(path string) error {
	up, err := handoff.New(&handoff.Config{
		Mode: handoff.Takeover, ControlSocket: path, ReadyTimeout: patience,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	})
	if err != nil {
		return err
	}
	return up.Close()
}

// TestHostilePredecessor has New join a process that breaks the protocol of a
// predecessor in each way.
func TestHostilePredecessor(t *testing.T) {
	t.Parallel()
	welcome := func(change func(*wire.Welcome)) *wire.Welcome {
		w := &wire.Welcome{Version: wire.MaxVersion, Generation: 1, PID: int64(os.Getpid()), HangTimeout: time.Second}
		change(w)
		return w
	}
	sockets := func(fds int) func(*rawPeer) {
		return func(p *rawPeer) {
			p.send(welcome(func(w *wire.Welcome) { w.Sockets = 2 }))
			e := wire.Socket{Kind: wire.KindListener, Network: "tcp", Address: ":1", Bound: "[::]:1", Domain: unix.AF_INET6, SockType: unix.SOCK_STREAM, Listening: true}
			p.send(&wire.Sockets{Seq: 1, Entries: []wire.Socket{e, e}}, nulls(p.tb, fds)...)
		}
	}
	for _, c := range []struct {
		name string
		act  func(*rawPeer)
		want error
	}{
		{"too old", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.Version, Text: "too new for me"}) }, handoff.ErrVersion},
		{"chooses another version", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Version = 99 })) }, handoff.ErrVersion},
		{"busy", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.InProgress}) }, handoff.ErrInProgress},
		{"not ready", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.NotReady}) }, handoff.ErrNotReady},
		{"ending", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.Closed}) }, handoff.ErrClosed},
		{"refuses", func(p *rawPeer) { p.send(&wire.Refuse{Reason: failure.PeerRefused}) }, handoff.ErrPeerRefused},
		{"garbage", func(p *rawPeer) { p.write(header(1<<31, 1, 1)) }, handoff.ErrProtocol},
		{"other message", func(p *rawPeer) { p.send(&wire.Commit{}) }, handoff.ErrProtocol},
		{"more sockets than there can be", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Sockets = 1<<32 - 1 })) }, handoff.ErrProtocol},
		{"more sockets than fit", func(p *rawPeer) { p.send(welcome(func(w *wire.Welcome) { w.Sockets = 1 << 20 })) }, handoff.ErrTransfer},
		{"other sockets than said", sockets(2), handoff.ErrTransfer},
		{"fewer sockets than said", sockets(1), handoff.ErrProtocol},
		{"no sockets", sockets(0), handoff.ErrProtocol},
		{"silence", func(*rawPeer) {}, handoff.ErrTimeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ln, path := listenRaw(t)
			var wg sync.WaitGroup
			wg.Go(func() { // ends with the listener; New may try more than once
				for {
					uc, err := ln.AcceptUnix()
					if err != nil {
						return
					}
					p := newRawPeer(t, uc)
					if m, err := p.recv(); err != nil || m.Type() != wire.TypeHello {
						t.Errorf("first message: %T, %v, want Hello", m, err)
					}
					c.act(p)
					_, _ = io.Copy(io.Discard, uc) // until New closes it
				}
			})
			ln.SetUnlinkOnClose(false)
			err := join(path)
			if !errors.Is(err, c.want) {
				t.Errorf("New: %v, want %v", err, c.want)
			}
			_ = ln.Close()
			wg.Wait()
			if _, err := os.Lstat(path); err != nil {
				t.Errorf("the other's socket afterwards: %v", err)
			}
		})
	}
}
