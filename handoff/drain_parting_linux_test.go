package handoff_test

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/testenv"
)

// parting is an upgrade in mode Drain, whose processes are both in this one, of a
// service with a TCP and a UDP socket.
type parting struct {
	first, second *handoff.Upgrader
	ln            *handoff.Listener // of first
	pc            *handoff.PacketConn
	lingers       chan struct{} // closed when first has begun to linger
}

func newParting(t *testing.T) *parting {
	t.Helper()
	p := &parting{lingers: make(chan struct{})}
	cfg := handoff.Config{
		Mode: handoff.Drain, ControlSocket: filepath.Join(testenv.ShortDir(t), "c", "s"), Probation: -1, LingerTimeout: time.Hour,
		UpgradeSignals: []os.Signal{}, StopSignals: []os.Signal{},
	}
	cfg.OnEvent = func(e handoff.Event) {
		if e.Kind == handoff.EventLingering {
			close(p.lingers)
		}
	}
	p.first, p.ln, p.pc = openPair(t, &cfg, "127.0.0.1:0", "127.0.0.1:0")
	keepAccepting(p.ln)
	if err := p.first.Ready(); err != nil {
		t.Fatal(err)
	}
	cfg.OnEvent = nil
	var ln *handoff.Listener
	p.second, ln, _ = openPair(t, &cfg, p.ln.Addr().String(), p.pc.LocalAddr().String())
	keepAccepting(ln)
	return p
}

// openPair starts one process's side of a service with a TCP and a UDP socket.
func openPair(t *testing.T, cfg *handoff.Config, tcp, udp string) (*handoff.Upgrader, *handoff.Listener, *handoff.PacketConn) {
	t.Helper()
	up, err := handoff.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = up.Close() })
	ln, err := up.Listen(t.Context(), "tcp4", tcp)
	if err != nil {
		t.Fatal(err)
	}
	pc, err := up.ListenPacket(t.Context(), "udp4", udp)
	if err != nil {
		t.Fatal(err)
	}
	return up, ln, pc
}

// shutdown begins the Shutdown of first; the result waits for its end.
func (p *parting) shutdown(t *testing.T) (wait func()) {
	var wg sync.WaitGroup
	wg.Go(func() { // ends when no process has a socket
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := p.first.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return wg.Wait
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestDrainPartsListeners has the predecessor's program call Shutdown as soon as Done
// is closed, while its listeners are open. The successor, which drains them when it
// receives that they are closed, must not receive that earlier.
func TestDrainPartsListeners(t *testing.T) {
	t.Parallel()
	p := newParting(t)
	release := sync.OnceFunc(handoff.HoldListener(p.ln))
	defer release()
	if err := p.second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-p.first.Done()
	wait := p.shutdown(t)
	<-p.first.LingerExpired() // it has closed its datagram sockets by then
	if _, _, err := p.pc.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom() = %v, want %v", err, net.ErrClosed)
	}
	handoff.Overtake(p.first, p.second)
	listeners, packets := handoff.ToldClosed(p.second)
	if isClosed(listeners) || isClosed(packets) {
		t.Errorf("the successor has received: listeners closed %t, datagram sockets closed %t; want neither", isClosed(listeners), isClosed(packets))
	}
	release()
	<-listeners
	<-packets
	wait()
	if err := handoff.Settled(p.second, patience); err != nil {
		t.Error(err)
	}
}

// TestDrainPartsPackets delays the predecessor's close of its datagram sockets. Until
// they are closed, the successor receives other messages but not that one.
func TestDrainPartsPackets(t *testing.T) {
	t.Parallel()
	p := newParting(t)
	if err := p.second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-p.lingers
	release := sync.OnceFunc(handoff.HoldPacketConn(p.pc))
	defer release()
	wait := p.shutdown(t)
	listeners, packets := handoff.ToldClosed(p.second)
	<-listeners
	var remaining []time.Duration // each account of the linger has another time in it
	eventually(t, "the successor has two accounts of the linger", func() bool {
		for _, l := range p.second.Status().Lingering {
			if n := len(remaining); n == 0 || remaining[n-1] != l.Remaining {
				remaining = append(remaining, l.Remaining)
			}
		}
		return len(remaining) > 2
	})
	if isClosed(packets) {
		t.Error("the successor has received that the datagram sockets are closed, and they are open")
	}
	release()
	<-packets
	wait()
	if err := handoff.Settled(p.second, patience); err != nil {
		t.Error(err)
	}
}

// TestDrainHidesListeners keeps a duplicate of the predecessor's listener, unknown to
// both processes, to observe how the successor drains it: as a socket of its own, which
// no SYN can reach while it closes.
func TestDrainHidesListeners(t *testing.T) {
	t.Parallel()
	p := newParting(t)
	dup, err := fdx.Dup(p.ln)
	if err != nil {
		t.Fatal(err)
	}
	defer fdx.Close(dup)
	if err := p.second.Ready(); err != nil {
		t.Fatal(err)
	}
	<-p.first.Done()
	p.shutdown(t)()
	if err := handoff.Settled(p.second, patience); err != nil {
		t.Fatal(err)
	}
	index, err := unix.GetsockoptInt(dup, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	if err != nil || index == 0 {
		t.Errorf("the drained listener is bound to interface %d, %v, want one that is nowhere", index, err)
	}
}
