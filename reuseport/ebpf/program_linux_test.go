package ebpf_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/netlab"
	"github.com/seed-11c92bf9/baton/internal/testmain"
	"github.com/seed-11c92bf9/baton/reuseport"
	"github.com/seed-11c92bf9/baton/reuseport/ebpf"
)

func TestMain(m *testing.M) {
	testmain.RunWith(m, map[string]func([]string){"privilege": privilege})
}

func newProgram(t *testing.T) *ebpf.Program {
	t.Helper()
	p, err := ebpf.New()
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) {
		testmain.Skipped()
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func serve(l net.Listener, n *atomic.Int64) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		n.Add(1)
		go func() { // ends with the client
			defer c.Close()
			b := make([]byte, 1)
			for {
				if _, err := c.Read(b); err != nil {
					return
				}
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}()
	}
}

// deferAccept has a connection stay half-open until its client sends.
func deferAccept(l syscall.Conn) error {
	rc, err := l.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	if err := rc.Control(func(fd uintptr) {
		serr = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 120)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt(TCP_DEFER_ACCEPT)", serr)
}

func ask(c net.Conn) error {
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{1}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func dial(t *testing.T, address string, n int) []net.Conn {
	t.Helper()
	conns, err := dialMany(address, n)
	t.Cleanup(func() {
		for _, c := range conns {
			_ = c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return conns
}

func dialMany(address string, n int) (conns []net.Conn, err error) {
	for range n {
		c, err := net.Dial("tcp", address)
		if err != nil {
			return conns, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// Members leave with handshakes under way, and don't wait for them: what they
// held is served by the others.
func TestDrain(t *testing.T) {
	t.Parallel()
	for _, f := range []struct{ name, network, address string }{
		{"IPv4", "tcp4", "127.66.37.1:0"}, {"IPv6", "tcp6", "[::1]:0"}, {"dual-stack", "tcp", "[::]:0"},
	} {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			p := newProgram(t)
			g, err := reuseport.ListenGroup(ctx, f.network, f.address, &reuseport.Config{Members: 4})
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			if err := g.Use(ctx, p); err != nil {
				t.Fatal(err)
			}
			if err := g.Use(ctx, p); err == nil {
				t.Error("second Use = nil, want an error")
			}
			if err := g.Steer(ctx, reuseport.Hash()); !errors.Is(err, errors.ErrUnsupported) {
				t.Errorf("Steer beside a Steerer: %v, want ErrUnsupported", err)
			}
			var served [4]atomic.Int64
			for i, l := range g.Members() {
				if err := deferAccept(l); err != nil {
					t.Fatal(err)
				}
				go serve(l, &served[i])
			}
			conns := dial(t, g.Addr().String(), 100)
			ms := g.Members()
			r, err := g.Remove(ctx, ms[0], ms[2])
			if err != nil || r.Strategy != reuseport.StrategySteerer || r.LossPossible || r.Members != 2 {
				t.Errorf("Remove = %+v, %v", r, err)
			}
			for _, c := range conns {
				if err := ask(c); err != nil {
					t.Errorf("a connection that was half-open: %v", err)
				}
			}
			if a, b, c, d := served[0].Load(), served[1].Load(), served[2].Load(), served[3].Load(); a != 0 || c != 0 || b == 0 || d == 0 {
				t.Errorf("served %d, %d, %d, %d, want all by the second and the last", a, b, c, d)
			}
			l, err := g.Add(ctx)
			if err != nil {
				t.Fatal(err)
			}
			var later atomic.Int64
			go serve(l, &later)
			for later.Load() == 0 && ctx.Err() == nil {
				if err := ask(dial(t, g.Addr().String(), 1)[0]); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

func TestNewWithoutPrivilege(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to give it up")
	}
	t.Parallel()
	netlab.NewNamespace(t).DoAs(65534, func() {
		p, err := ebpf.New()
		if err == nil {
			_ = p.Close()
			t.Skip("this kernel lets everybody load programs")
		}
		if !errors.Is(err, fs.ErrPermission) {
			t.Errorf("New without CAP_BPF: %v, want ErrPermission", err)
		}
	})
}
