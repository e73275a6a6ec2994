package handoffquic_test

import (
	"net"
	"sync"
	"testing"
	"time"
)

// A wire is the socket of a client, whose datagrams a test can hold back, and which can
// get another port, as by a NAT.
type wire struct {
	// sent reports whether a datagram of the client goes out now. It is called with a lock.
	sent func(p []byte) bool
	// received sees what comes.
	received func(p []byte)

	mu   sync.Mutex
	conn net.PacketConn
	held []datagram
}

type datagram struct {
	p  []byte
	to net.Addr
}

func newWire(t *testing.T, w *wire) *wire {
	t.Helper()
	w.conn = udp(t)
	return w
}

func udp(t *testing.T) net.PacketConn {
	t.Helper()
	pc, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pc.Close() })
	return pc
}

func (w *wire) now() net.PacketConn {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.conn
}

// rebind gives the client another port.
func (w *wire) rebind(t *testing.T) {
	t.Helper()
	pc := udp(t)
	w.mu.Lock()
	old := w.conn
	w.conn = pc
	w.mu.Unlock()
	_ = old.Close() // what is on its way there is lost
}

// release sends what was held back.
func (w *wire) release(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sent = nil
	for _, d := range w.held {
		if _, err := w.conn.WriteTo(d.p, d.to); err != nil {
			t.Error(err)
		}
	}
}

func (w *wire) WriteTo(p []byte, to net.Addr) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.sent != nil && !w.sent(p) {
		w.held = append(w.held, datagram{append([]byte(nil), p...), to})
		return len(p), nil
	}
	return w.conn.WriteTo(p, to)
}

func (w *wire) ReadFrom(p []byte) (int, net.Addr, error) {
	for {
		c := w.now()
		n, from, err := c.ReadFrom(p)
		if err != nil && w.now() != c {
			continue
		}
		if err == nil && w.received != nil {
			w.received(p[:n])
		}
		return n, from, err
	}
}

func (w *wire) Close() error        { return w.now().Close() }
func (w *wire) LocalAddr() net.Addr { return w.now().LocalAddr() }

func (w *wire) SetDeadline(t time.Time) error      { return w.now().SetDeadline(t) }
func (w *wire) SetReadDeadline(t time.Time) error  { return w.now().SetReadDeadline(t) }
func (w *wire) SetWriteDeadline(t time.Time) error { return w.now().SetWriteDeadline(t) }
