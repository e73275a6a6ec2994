package handoff_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

func TestSentinels(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ err, is error }{
		{handoff.ErrClosed, net.ErrClosed},
		{handoff.ErrUnsupported, errors.ErrUnsupported},
		{&handoff.UpgradeError{Err: handoff.ErrTimeout}, handoff.ErrTimeout},
	} {
		if !errors.Is(c.err, c.is) {
			t.Errorf("errors.Is(%v, %v) = false, want true", c.err, c.is)
		}
	}
	var ne net.Error
	if !errors.As(handoff.ErrTimeout, &ne) || !ne.Timeout() {
		t.Error("ErrTimeout is no net.Error with Timeout() == true")
	}
}

func TestConfigErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		cfg  handoff.Config
		want string
	}{
		"takeover without a name": {handoff.Config{Mode: handoff.Takeover}, "needs Name or ControlSocket"},
		"a path for a name":       {handoff.Config{Mode: handoff.Takeover, Name: "a/b"}, "can't be the name of a folder"},
		"a mode that is none":     {handoff.Config{Mode: "x"}, `mode "x": the modes are ["inherit" "takeover" "drain"]`},
		"inherit, executable":     {handoff.Config{Executable: "/bin/true"}, "tableflip"},
		"a long name":             {handoff.Config{Mode: handoff.Takeover, Name: strings.Repeat("x", 120)}, "choose a shorter Name"},
		"a long path":             {handoff.Config{Mode: handoff.Takeover, ControlSocket: "/tmp/" + strings.Repeat("x", 120)}, "choose a shorter ControlSocket"},
	} {
		up, err := handoff.New(&c.cfg)
		if err == nil {
			_ = up.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("New(%s) = %v, want an error with %q", name, err, c.want)
		}
	}
}

// TestDefaultMode asks which mode the zero Mode is, after a New that has failed.
func TestDefaultMode(t *testing.T) {
	path := filepath.Join(testenv.ShortDir(t), "c", "s")
	newUpgrader(t, handoff.Config{ControlSocket: path})
	if up, err := handoff.New(&handoff.Config{Mode: handoff.Inherit, ControlSocket: path}); !errors.Is(err, syscall.EADDRINUSE) {
		t.Fatalf("New() at another's control socket = %v, %v, want EADDRINUSE", up, err)
	}
	for want, cfg := range map[handoff.Mode]handoff.Config{
		handoff.Inherit:  {},
		handoff.Takeover: {ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s")},
	} {
		up, err := handoff.New(&cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got := up.Status().Mode; got != want {
			t.Errorf("the zero Mode with ControlSocket %q is %v, want %v", cfg.ControlSocket, got, want)
		}
		if err := up.Close(); err != nil {
			t.Error(err)
		}
	}
}

func TestModeText(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(handoff.Report{Mode: handoff.Takeover})
	if err != nil || !strings.Contains(string(b), `"mode":"takeover"`) {
		t.Errorf("Marshal(Report) = %s, %v", b, err)
	}
	var r handoff.Report
	if err := json.Unmarshal(b, &r); err != nil || r.Mode != handoff.Takeover {
		t.Errorf("Unmarshal(Report).Mode = %v, %v, want takeover", r.Mode, err)
	}
	// A command of an older version shows the mode of a newer one, which its New refuses.
	if err := json.Unmarshal([]byte(`{"mode":"x"}`), &r); err != nil || r.Mode != "x" {
		t.Errorf("Unmarshal(Report).Mode = %v, %v, want x", r.Mode, err)
	}
	if _, err := handoff.New(&handoff.Config{Mode: r.Mode}); !errors.Is(err, handoff.ErrUnsupported) {
		t.Errorf("New() with mode %q: %v, want ErrUnsupported", r.Mode, err)
	}
}

// newUpgrader returns an Upgrader in this process.
func newUpgrader(tb testing.TB, cfg handoff.Config) *handoff.Upgrader {
	tb.Helper()
	cfg.Mode = handoff.Takeover
	if cfg.ControlSocket == "" {
		cfg.ControlSocket = filepath.Join(testenv.ShortDir(tb), "c", "s")
	}
	cfg.UpgradeSignals, cfg.StopSignals = []os.Signal{}, []os.Signal{}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	up, err := handoff.New(&cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = up.Close() })
	return up
}

func TestLifecycle(t *testing.T) {
	t.Parallel()
	var events []handoff.EventKind
	pid := filepath.Join(t.TempDir(), "pid")
	up := newUpgrader(t, handoff.Config{PIDFile: pid, OnEvent: func(e handoff.Event) { events = append(events, e.Kind) }})
	if err := up.Upgrade(t.Context()); !errors.Is(err, handoff.ErrNotReady) {
		t.Errorf("Upgrade() before Ready() = %v, want ErrNotReady", err)
	}
	if err := up.Abort(nil); !errors.Is(err, handoff.ErrNoUpgrade) {
		t.Errorf("Abort() without an upgrade = %v, want ErrNoUpgrade", err)
	}
	ln, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	// Not before Ready does Accept return a connection.
	if err := ln.SetDeadline(time.Now().Add(10 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := ln.Accept(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("Accept() before Ready() = %v, want os.ErrDeadlineExceeded", err)
	}
	if err := errors.Join(ln.SetDeadline(time.Time{}), up.Ready(), up.Ready()); err != nil {
		t.Fatal(err)
	}
	got, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(pid); err != nil || strings.TrimSpace(string(b)) != strconv.Itoa(os.Getpid()) {
		t.Errorf("PID file: %q, %v, want %d", b, err, os.Getpid())
	}
	if err := up.SendConn(t.Context(), "x", got, nil); !errors.Is(err, handoff.ErrNoSuccessor) {
		t.Errorf("SendConn() without a successor = %v, want ErrNoSuccessor", err)
	}
	// Shutdown waits for the connection, as long as its context does.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := up.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Shutdown() with an open connection = %v, want context.DeadlineExceeded", err)
	}
	if _, err := got.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("write to a connection that was cut: %v, want net.ErrClosed", err)
	}
	select {
	case <-up.Done():
	default:
		t.Error("Done() is open after Shutdown()")
	}
	if err := up.Shutdown(t.Context()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("second Shutdown() = %v, want the first one's error", err)
	}
	for name, err := range map[string]error{
		"Ready": up.Ready(), "Upgrade": up.Upgrade(t.Context()), "SendConn": up.SendConn(t.Context(), "x", got, nil),
	} {
		if !errors.Is(err, handoff.ErrClosed) {
			t.Errorf("%s() after Shutdown() = %v, want ErrClosed", name, err)
		}
	}
	if _, err := up.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, handoff.ErrClosed) {
		t.Errorf("Listen() after Shutdown() = %v, want ErrClosed", err)
	}
	if _, err := os.Stat(pid); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("PID file after Shutdown(): %v, want none", err)
	}
	want := []handoff.EventKind{handoff.EventReady, handoff.EventOwner, handoff.EventStopped}
	if len(events) != len(want) {
		t.Fatalf("events: %v, want %v", events, want)
	}
	for i := range want {
		if events[i] != want[i] {
			t.Errorf("event %d: %s, want %s", i, events[i], want[i])
		}
	}
}

// TestControlAnswers asks the control socket without pause while the service is
// upgraded. One of the processes answers each time.
func TestControlAnswers(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
		stop, done := make(chan struct{}), make(chan error, 1)
		asked := 0
		go func() {
			for {
				select {
				case <-stop:
					done <- nil
					return
				default:
				}
				if err := askControl(filepath.Join(s.set.Dir, "ctl", "s")); err != nil {
					done <- err
					return
				}
				asked++
			}
		}()
		for gen := range 3 {
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(gen+1) })
		}
		close(stop)
		if err := <-done; err != nil {
			t.Errorf("after %d answers: %v", asked, err)
		}
		if asked < 20 {
			t.Errorf("asked %d times: the test proves nothing", asked)
		}
		s.stop()
	})
}

// askControl sends what no version understands and wants to be refused for it.
func askControl(path string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	conn := fdpass.New(c)
	defer conn.Close()
	m := &wire.Request{Op: "nonsense"}
	if err := conn.SetReadDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	// One that we reached on its way out may have answered before it was asked.
	sent := conn.Send(uint16(m.Type()), wire.Append(nil, m), nil)
	f, err := conn.Recv()
	if err != nil {
		return errors.Join(sent, err)
	}
	if wire.Type(f.Type) != wire.TypeRefuse {
		return errors.New("not refused")
	}
	return nil
}

// TestNoProbation commits at once.
func TestNoProbation(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		s := newService(t, settings{Mode: mode, Sockets: []string{"tcp 127.0.0.1:0"}, Probation: -1}).start()
		addr := s.wait("addrs").Addrs["0 tcp 127.0.0.1:0"]
		l := newLoad(t, s.set.Dir, map[string]string{"0 tcp": addr})
		for gen := range 5 {
			l.run(10)
			s.upgrade()
			s.waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(gen+1) })
		}
		l.run(10)
		l.stop()
		s.stop()
	})
}

// TestShutdownSilentPeer has a peer at the control socket that says nothing: it
// holds up no Shutdown.
func TestShutdownSilentPeer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "c", "s")
	up := newUpgrader(t, handoff.Config{ControlSocket: path})
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	var silent []net.Conn
	for range 3 {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	if err := askControl(path); err != nil { // behind them in the queue: they are served
		t.Fatal(err)
	}
	start := time.Now()
	if err := up.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if d := time.Since(start); d >= handoff.HangTimeout {
		t.Errorf("Shutdown() took %v with %d silent peers", d, len(silent))
	}
}

// TestShutdownAnswers has a slow reader of a datagram while Shutdown runs: it can still
// answer. A reader that never returns delays nothing.
func TestShutdownAnswers(t *testing.T) {
	t.Parallel()
	for _, returns := range []bool{true, false} {
		t.Run(map[bool]string{true: "returns", false: "never returns"}[returns], func(t *testing.T) {
			t.Parallel()
			up := newUpgrader(t, handoff.Config{ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s")})
			pc, err := up.ListenPacket(t.Context(), "udp", "127.66.8.14:0")
			if err != nil {
				t.Fatal(err)
			}
			if err := up.Ready(); err != nil {
				t.Fatal(err)
			}
			client, err := net.Dial("udp", pc.LocalAddr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			if _, err := client.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			_, from, err := pc.ReadFrom(make([]byte, 1))
			if err != nil {
				t.Fatal(err)
			}
			ended := make(chan error)
			go func() { ended <- up.Shutdown(context.Background()) }()
			<-up.Done()
			if returns {
				<-time.After(200 * time.Millisecond) // a Shutdown that doesn't wait would be over
				if _, err := pc.WriteTo([]byte("y"), from); err != nil {
					t.Errorf("the answer: %v", err)
				}
				if _, _, err := pc.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
					t.Errorf("ReadFrom() = %v, want ErrClosed", err)
				}
				_ = client.SetReadDeadline(time.Now().Add(patience)) // Read says it
				if _, err := client.Read(make([]byte, 1)); err != nil {
					t.Errorf("no answer: %v", err)
				}
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
		})
	}
}

// TestOutsiderDies has an outsider end between its New and its Ready.
func TestOutsiderDies(t *testing.T) {
	t.Parallel()
	s := newService(t, settings{Mode: handoff.Takeover, Sockets: []string{"tcp 127.0.0.1:0"}}).start()
	s.plan(plan{At: "joined", How: "exit0"})
	o := s.outsider(handoff.Takeover)
	m := s.wait("upgrade-failed")
	if len(m.Is) != 1 || m.Is[0] != "ErrSuccessorDied" {
		t.Errorf("upgrade: %v %s, want ErrSuccessorDied", m.Is, m.Err)
	}
	s.gone(o.cmd.Process.Pid)
	s.stop()
}
