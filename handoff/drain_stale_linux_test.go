package handoff_test

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
	"github.com/seed-11c92bf9/baton/reuseport"
)

// neighbour is another service's members, which answer as generation 0.
type neighbour struct {
	tcp *reuseport.Group
	udp *reuseport.PacketGroup
}

func newNeighbour(t *testing.T, host string, members int) *neighbour {
	t.Helper()
	cfg := &reuseport.Config{Members: members}
	tcp, err := reuseport.ListenGroup(t.Context(), "tcp", host+":0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcp.Close() })
	udp, err := reuseport.ListenPacketGroup(t.Context(), "udp", host+":0", cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = udp.Close() })
	for _, m := range tcp.Members() {
		go func() { // ends with m
			for c, err := m.Accept(); err == nil; c, err = m.Accept() {
				go answerOnce(c)
			}
		}()
	}
	for _, m := range udp.Members() {
		go func() { // likewise
			buf := make([]byte, 100)
			for n, addr, err := m.ReadFrom(buf); err == nil; n, addr, err = m.ReadFrom(buf) {
				_, _ = m.WriteTo(append([]byte("0 "), buf[:n]...), addr)
			}
		}()
	}
	return &neighbour{tcp, udp}
}

// answerOnce answers one line, and ends with it or with the client.
func answerOnce(c net.Conn) {
	defer c.Close()
	buf := make([]byte, 100)
	if n, err := c.Read(buf); err == nil {
		_, _ = c.Write(append([]byte("0 "), buf[:n]...))
	}
}

func (n *neighbour) addrs() map[string]string {
	return map[string]string{"tcp": n.tcp.Addr().String(), "udp": n.udp.Members()[0].LocalAddr().String()}
}

// instance returns a service on the same addresses.
func (n *neighbour) instance(t *testing.T) *service {
	a := n.addrs()
	return newService(t, settings{Mode: handoff.Drain, Sockets: []string{"tcp " + a["tcp"], "udp " + a["udp"]}})
}

// share waits until the instance gets some of the traffic.
func share(t *testing.T, addrs map[string]string) {
	t.Helper()
	for network, addr := range addrs {
		eventually(t, "the instance gets its share of "+network, func() bool {
			gen, err := ask(network, addr)
			if err != nil {
				t.Error(err)
			}
			return gen == 1
		})
	}
}

// TestDrainStaleProgram starts a service in groups whose steering program does not know
// it: a process that was killed during a drain leaves such a program behind.
func TestDrainStaleProgram(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "127.66.8.7", 1)
	for _, c := range []syscall.Conn{n.tcp.Members()[0], n.udp.Members()[0]} {
		fd, err := fdx.Dup(c)
		if err != nil {
			t.Fatal(err)
		}
		prog := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}} // the neighbour's
		err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &prog[0]})
		if err := errors.Join(err, fdx.Close(fd)); err != nil {
			t.Fatal(err)
		}
	}
	s := n.instance(t).start()
	share(t, n.addrs())
	s.stop()
}

// TestDrainNeighbourSteers starts a service while its neighbour turns traffic
// away from a member, which the service does not undo.
func TestDrainNeighbourSteers(t *testing.T) {
	t.Parallel()
	n := newNeighbour(t, "127.66.8.10", 2)
	away, awayUDP := n.tcp.Members()[0], n.udp.Members()[0]
	ctx := context.Background()
	if err := errors.Join(n.tcp.Steer(ctx, reuseport.Away(away)), n.udp.Steer(ctx, reuseport.Away(awayUDP))); err != nil {
		t.Fatal(err)
	}
	s := n.instance(t).start()
	for network, addr := range n.addrs() {
		for range 50 {
			if _, err := ask(network, addr); err != nil {
				t.Error(err)
			}
		}
	}
	if got := away.Accepted(); got != 0 {
		t.Errorf("the member that traffic was turned away from has accepted %d connections", got)
	}
	if r, err := n.udp.Remove(ctx, awayUDP); err != nil || r.LossPossible || r.Accepted != 0 {
		t.Errorf("Remove() = %+v, %v, want no datagram and no loss", r, err)
	}
	if r, err := n.tcp.Remove(ctx, away); err != nil || r.LossPossible {
		t.Errorf("Remove() = %+v, %v, want no loss", r, err)
	}
	share(t, n.addrs())
	s.stop()
}

// TestDrainStartsBesideUpgrades starts services on the addresses of another that
// is upgraded meanwhile: neither takes anything from the other's clients.
func TestDrainStartsBesideUpgrades(t *testing.T) {
	t.Parallel()
	set := settings{Mode: handoff.Drain, Probation: 20 * time.Millisecond, Sockets: []string{"tcp 127.66.8.11:" + freePort(t), "udp 127.66.8.11:" + freePort(t)}}
	all := []*service{newService(t, set).start()}
	addrs := all[0].wait("addrs").Addrs
	var loads []*load
	for range 4 {
		loads = append(loads, newLoad(t, all[0].set.Dir, addrs))
	}
	for i := range testenv.Times(2, 5) {
		for _, l := range loads {
			l.run(20)
		}
		all[0].signal(syscall.SIGUSR2)
		all = append(all, newService(t, set).start())
		all[0].wait("committed")
		all[0].waitFor("exit", func(m message) bool { return m.Kind == "exit" && m.Generation == uint64(i+1) })
	}
	for _, l := range loads {
		l.run(20)
		l.stop()
		t.Logf("%d questions, %d without an answer", l.asked.Load(), l.failed.Load())
	}
	for _, s := range all {
		s.stop()
	}
}
