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
	wg.Go(func() { // ends once nobody holds a socket
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

// TestDrainPartsListeners has the predecessor's program call Shutdown as soon as
// Done is closed, when its listeners are still open: the successor, which drains
// them when it hears that they are closed, does not hear it before.
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
		t.Errorf("the successor was told: listeners closed %t, datagram sockets closed %t; want neither", isClosed(listeners), isClosed(packets))
	}
	release()
	<-listeners
	<-packets
	wait()
	if err := handoff.Settled(p.second, patience); err != nil {
		t.Error(err)
	}
}

// TestDrainPartsPackets holds the predecessor up when it is about to close its
// datagram sockets: until they are closed the successor does not hear that they
// are, whatever else it is told.
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
	var heard []time.Duration // each account of the linger has another time in it
	eventually(t, "the successor has heard twice how the linger goes", func() bool {
		for _, l := range p.second.Status().Lingering {
			if n := len(heard); n == 0 || heard[n-1] != l.Remaining {
				heard = append(heard, l.Remaining)
			}
		}
		return len(heard) > 2
	})
	if isClosed(packets) {
		t.Error("the successor was told that the datagram sockets are closed, and they are not")
	}
	release()
	<-packets
	wait()
	if err := handoff.Settled(p.second, patience); err != nil {
		t.Error(err)
	}
}

// TestDrainHidesListeners has a duplicate of the predecessor's listener, of which
// nobody knows, tell how the successor has drained it: as one that is its own
// alone, which no SYN can find while it closes.
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
