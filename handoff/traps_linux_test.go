package handoff_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// TestConnsTooLate asks for connections when the predecessor has been given the names.
func TestConnsTooLate(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{})
	before, err := up.Conns("early")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := up.Conns(strings.Repeat("x", 256)); err == nil {
		t.Error("Conns() with a name of 256 bytes: no error")
	}
	if err := up.Ready(); err != nil {
		t.Fatal(err)
	}
	if after, err := up.Conns("early"); err != nil || after != before {
		t.Errorf("Conns() after Ready with a known name: %v, want the same channel", err)
	}
	if _, err := up.Conns("late"); !errors.Is(err, handoff.ErrTooLate) {
		t.Errorf("Conns() after Ready with a new name: %v, want ErrTooLate", err)
	}
}

// TestListenForbidden binds a port that only a process with the capability may have.
func TestListenForbidden(t *testing.T) {
	t.Parallel()
	up := newUpgrader(t, handoff.Config{ListenConfig: &net.ListenConfig{
		Control: func(string, string, syscall.RawConn) error { return os.NewSyscallError("bind", syscall.EACCES) },
	}})
	if _, err := up.Listen(t.Context(), "tcp", "127.0.0.1:80"); !errors.Is(err, syscall.EACCES) || !strings.Contains(err.Error(), "CAP_NET_BIND_SERVICE") {
		t.Errorf("Listen() = %v, want EACCES and what to do", err)
	}
}

// TestListenInUse has another program's sockets at the addresses.
func TestListenInUse(t *testing.T) {
	t.Parallel()
	path := filepath.Join(testenv.ShortDir(t), "s")
	other := func(ln io.Closer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
	}
	tcp, err := net.Listen("tcp", "127.0.0.1:0")
	other(tcp, err)
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	other(udp, err)
	other(net.Listen("unix", path))
	up := newUpgrader(t, handoff.Config{Mode: handoff.Takeover, ControlSocket: testenv.ShortDir(t) + "/c/s"})
	for want, listen := range map[string]func() (io.Closer, error){
		"ss -ltnp": func() (io.Closer, error) { return up.Listen(t.Context(), "tcp", tcp.Addr().String()) },
		"ss -lunp": func() (io.Closer, error) { return up.ListenPacket(t.Context(), "udp", udp.LocalAddr().String()) },
		"ss -lxp":  func() (io.Closer, error) { return up.ListenNamed(t.Context(), "s", "unix", path) },
	} {
		_, err := listen()
		if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "address already in use: "+want) || !strings.Contains(err.Error(), "same Name, or ControlSocket") {
			t.Errorf("error %v, want EADDRINUSE, %s and what to do", err, want)
		}
	}
}

// TestListenInUpgrade listens while an upgrade is under way: a commit would close what
// the successor has not got.
func TestListenInUpgrade(t *testing.T) {
	t.Parallel()
	socket := filepath.Join(testenv.ShortDir(t), "c", "s")
	old := newUpgrader(t, handoff.Config{ControlSocket: socket, Probation: patience})
	next := func() *handoff.Upgrader { return newUpgrader(t, handoff.Config{ControlSocket: socket}) }
	if err := old.Ready(); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Listen(t.Context(), "tcp", "127.0.0.1:0"); err != nil {
		t.Errorf("Listen() after Ready: %v", err)
	}
	up := next()
	if _, err := old.Listen(t.Context(), "tcp", "127.0.0.1:0"); !errors.Is(err, handoff.ErrInProgress) {
		t.Errorf("Listen() in an upgrade: %v, want ErrInProgress", err)
	}
	if err := old.AddFile("f", open(t, os.DevNull)); !errors.Is(err, handoff.ErrInProgress) {
		t.Errorf("AddFile() in an upgrade: %v, want ErrInProgress", err)
	}
	if err := up.Abort(errors.New("enough")); err != nil {
		t.Fatal(err)
	}
	eventually(t, "Listen works again", func() bool {
		_, err := old.Listen(t.Context(), "tcp", "127.0.0.1:0")
		return err == nil
	})
}

func open(tb testing.TB, path string) *os.File {
	tb.Helper()
	f, err := os.Open(path)
	if err != nil {
		tb.Fatal(err)
	}
	return f
}

// TestShutdownInOnEvent calls Shutdown from the hook, alone and while another call is
// under way.
func TestShutdownInOnEvent(t *testing.T) {
	t.Parallel()
	for name, both := range map[string]bool{"alone": false, "both": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ups, ended := make(chan *handoff.Upgrader, 1), make(chan error, 1)
			up := newUpgrader(t, handoff.Config{OnEvent: func(e handoff.Event) {
				if e.Kind == handoff.EventReady {
					ended <- (<-ups).Shutdown(context.Background())
				}
			}})
			if err := up.Ready(); err != nil {
				t.Fatal(err)
			}
			ups <- up
			if both {
				if err := up.Shutdown(t.Context()); err != nil {
					t.Errorf("Shutdown() = %v", err)
				}
			}
			if err := <-ended; err != nil {
				t.Errorf("Shutdown() in OnEvent = %v", err)
			}
			if err := up.Shutdown(t.Context()); err != nil {
				t.Errorf("Shutdown() after it = %v", err)
			}
		})
	}
}

// TestGivenName starts a service under the name of another program (exec -a sleep,
// ExecStart=@): an upgrade does not start that one.
func TestGivenName(t *testing.T) {
	eachMode(t, func(t *testing.T, mode handoff.Mode) {
		i := install(t, mode)
		i.run(variation{}, "", "sleep")
		if mode == handoff.Inherit {
			i.mustFail(`tableflip would start os.Args[0], "sleep", which does not lead to`, i.app)
		} else {
			i.mustCommit()
			i.runs(i.app)
		}
		i.stop()
	})
}
