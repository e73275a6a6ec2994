package probes_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/seed-11c92bf9/baton/internal/probes"
)

// connect returns both ends of a connection, the client from the port of local.
func connect(t *testing.T, ln net.Listener, local net.Addr) (client *net.TCPConn, accept func() net.Conn) {
	t.Helper()
	d := net.Dialer{LocalAddr: local}
	c, err := d.DialContext(t.Context(), "tcp4", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn), func() net.Conn {
		t.Helper()
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
}

func at(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }

// A probe is taken over, before its end and after; a client that has got its port
// is not.
func TestSwallow(t *testing.T) {
	ln, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	reset := func(c *net.TCPConn) {
		t.Helper()
		if err := c.SetLinger(0); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}

	_, accept := connect(t, ln, nil)
	if probes.Swallow(accept()) {
		t.Error("a connection was swallowed that is no probe")
	}

	c, accept := connect(t, ln, nil)
	p := probes.Add(at(ln.Addr()), at(c.LocalAddr()))
	if !probes.Swallow(accept()) {
		t.Error("a probe under way was not swallowed")
	}
	if _, err := c.Write([]byte("x")); err != nil {
		t.Errorf("a probe was closed before its end: %v", err)
	}
	p.End(1)
	if n := probes.Waiting(1); n != 0 {
		t.Errorf("%d probes wait, want none", n)
	}
	_ = c.Close() // was reset

	c, accept = connect(t, ln, nil)
	p = probes.Add(at(ln.Addr()), at(c.LocalAddr()))
	p.End(2)
	local := c.LocalAddr()
	reset(c)
	_, acceptClient := connect(t, ln, local)
	if n := probes.Waiting(2); n != 1 {
		t.Errorf("%d probes wait, want 1", n)
	}
	waiting := accept()
	client := acceptClient()
	if probes.Swallow(client) {
		t.Error("a client was swallowed that has the port of a probe")
	}
	if !probes.Swallow(waiting) {
		t.Error("a probe that has ended was not swallowed")
	}
	if n := probes.Waiting(2); n != 0 {
		t.Errorf("%d probes wait, want none", n)
	}
}
