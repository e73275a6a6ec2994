package handoff_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/control"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestMovedConnections moves open connections through several upgrades: each
// answers from the newest generation, whose status counts it as received, and its end is
// seen by the peer.
func TestMovedConnections(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Move: true}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		const n = 300 // more than one batch
		conns := make([]net.Conn, n)
		for i := range conns {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			conns[i] = c
			if gen, err := askOver(c, "a"); err != nil || gen != 1 {
				t.Fatalf("generation %d, %v, want 1", gen, err)
			}
		}
		last := uint64(testenv.Times(3, 4))
		for gen := uint64(2); gen <= last; gen++ {
			// A line of which half is on its way when the connection moves.
			for _, c := range conns {
				if _, err := io.WriteString(c, "ha"); err != nil {
					t.Fatal(err)
				}
			}
			s.upgrade()
			exit := s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == gen-1 })
			for _, m := range s.received() {
				if m.Kind == "not-moved" {
					t.Errorf("not moved: %s", m.Err)
				}
				if m.Kind == "stopped" && m.PID == exit.PID && (m.Report == nil || m.Report.Moved != n || m.Report.Cut != 0) {
					t.Errorf("report of generation %d: %+v, want %d moved, none cut", gen-1, m.Report, n)
				}
			}
			for i, c := range conns {
				if _, err := io.WriteString(c, "lf\n"); err != nil {
					t.Fatal(err)
				}
				_ = c.SetReadDeadline(time.Now().Add(patience))
				line, err := bufio.NewReader(c).ReadString('\n')
				if want := fmt.Sprintf("%d half\n", gen); err != nil || line != want {
					t.Fatalf("connection %d after the move: %q, %v, want %q", i, line, err, want)
				}
			}
		}
		client, err := control.New(&control.Config{Socket: controlOf(s)})
		if err != nil {
			t.Fatal(err)
		}
		if st, err := client.Status(t.Context()); err != nil || st.Accepted != 0 || st.Received != n {
			t.Errorf("status of generation %d: %+v, %v, want none accepted, %d received", last, st, err, n)
		}
		// The sender's copy is gone: when the last owner ends, the peer sees it.
		s.signal(syscall.SIGTERM)
		s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == last })
		for i, c := range conns {
			_ = c.SetReadDeadline(time.Now().Add(patience))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatalf("connection %d after the end: %v, want its end", i, err)
			}
		}
		s.gone(s.pidsSeen()...)
	})
}

// TestNoGap connects without pause while upgrades run. The successor's gate opens
// before the predecessor's closes, so no client waits for a probation or a start.
func TestNoGap(t *testing.T) {
	const probation = 3 * time.Second
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: probation}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		stop := make(chan struct{})
		type result struct {
			worst time.Duration
			n     int
			order string
			err   error
		}
		done := make(chan result)
		go func() {
			var r result
			for {
				select {
				case <-stop:
					done <- r
					return
				default:
				}
				began := time.Now()
				gen, err := ask("tcp", addr)
				r.worst = max(r.worst, time.Since(began))
				r.n++
				r.err = errors.Join(r.err, err)
				if g := fmt.Sprint(gen); !strings.HasSuffix(r.order, g) {
					r.order += g
				}
			}
		}()
		s.upgrade()
		close(stop)
		r := <-done
		if r.err != nil || r.n < 10 {
			t.Fatalf("%d questions, %v", r.n, r.err)
		}
		t.Logf("%d questions, the slowest took %v, answered by generations %s in turn", r.n, r.worst, r.order)
		// If the gates closed and opened in the wrong order, or the successor's gates
		// did not open, no process would accept during the probation.
		if r.worst >= probation {
			t.Errorf("a connection waited %v", r.worst)
		}
		if !strings.HasPrefix(r.order, "12") && !strings.HasPrefix(r.order, "2") {
			t.Errorf("answered by generations %s, want 1, then 2", r.order)
		}
		s.stop()
	})
}

// TestStateFails has the writer of the state fail: the upgrade fails, and the
// predecessor serves on.
func TestStateFails(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, BadState: true}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		s.signal(syscall.SIGUSR2)
		m := s.wait("upgrade-failed")
		if !strings.Contains(m.Err, "a planned failure to write") || len(m.Is) != 1 || m.Is[0] != "ErrTransfer" {
			t.Errorf("upgrade: %v %s, want ErrTransfer with the writer's words", m.Is, m.Err)
		}
		if gen, err := ask("tcp", addr); err != nil || gen != 1 {
			t.Errorf("after the failure: generation %d, %v, want 1", gen, err)
		}
		s.stop()
	})
}

// TestCutBy has a predecessor cut a connection: its successor's status says why.
func TestCutBy(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testenv.ShortDir(t), "c", "s")
	old := newUpgrader(t, handoff.Config{ControlSocket: socket, Probation: -1})
	ln, err := old.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := old.Ready(); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := ln.Accept(); err != nil { // tracked
		t.Fatal(err)
	}
	ended := make(chan struct{})
	next := newUpgrader(t, handoff.Config{ControlSocket: socket, OnEvent: func(e handoff.Event) {
		if e.Kind == handoff.EventPredecessorDone {
			close(ended)
		}
	}})
	if _, err := next.Listen(t.Context(), "tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if err := next.Ready(); err != nil {
		t.Fatal(err)
	}
	<-old.Done()
	if err := old.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
	upgrades := next.Status().Upgrades
	want := map[string]uint64{"tracked": 1}
	if len(upgrades) != 1 || upgrades[0].Cut != 1 || !cmp.Equal(want, upgrades[0].CutBy) {
		t.Errorf("Status().Upgrades = %+v, want one with one connection cut, by %v", upgrades, want)
	}
}
