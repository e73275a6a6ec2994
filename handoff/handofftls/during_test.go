package handofftls

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/seed-11c92bf9/baton/handoff"
)

// busySender calls a function while Send runs.
type busySender struct {
	carrier
	during func()
}

func (s *busySender) SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error {
	s.during()
	return s.carrier.SendConn(ctx, name, conn, state)
}

// keptOpen is a connection that another process has, too: a Close of it does not end it.
type keptOpen struct {
	net.Conn
	limits []time.Time // of writing, since the handshake
}

func (k *keptOpen) Close() error { return nil }

func (k *keptOpen) SetWriteDeadline(t time.Time) error {
	k.limits = append(k.limits, t)
	return k.Conn.SetWriteDeadline(t)
}

// establishKept makes a connection on a keptOpen, and moves it if it is to have moved.
func establishKept(tb testing.TB, again bool) (*keptOpen, io.ReadWriter, *Conn) {
	tb.Helper()
	client, server := dial(tb)
	kept := &keptOpen{Conn: server}
	tc, c := establishOn(tb, plain(), insecure, client, kept)
	if again {
		c = move(tb, c)
	}
	both(tb, tc, c, "before")
	return kept, tc, c
}

// TestCloseDuringSend closes a connection while Send runs: the alert that ends a connection
// would have the nonce of the successor's first record.
func TestCloseDuringSend(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved=%t", again), func(t *testing.T) {
			t.Parallel()
			kept, tc, c := establishKept(t, again)
			up := busySender{during: func() {
				_ = c.Close() // its result is not the matter
			}}
			if err := Send(t.Context(), &up, "test", c, nil); err != nil {
				t.Fatal(err)
			}
			_ = kept.SetDeadline(time.Now().Add(patience)) // crypto/tls has ended writing by a deadline
			next, _, err := Receive(*up.moved, c.cfg)
			if err != nil {
				t.Fatal(err)
			}
			both(t, tc, next, "undisturbed")
		})
	}
}

// TestCloseWriteDuringSend calls CloseWrite while Send runs: it waits, and sends
// close_notify only if the connection has not moved.
func TestCloseWriteDuringSend(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		for _, outcome := range []error{nil, handoff.ErrInDoubt, handoff.ErrNotTaken} {
			t.Run(fmt.Sprintf("moved=%t %v", again, outcome), func(t *testing.T) {
				t.Parallel()
				_, tc, c := establishKept(t, again)
				ended := make(chan error, 1)
				up := busySender{carrier: carrier{err: outcome}, during: func() {
					go func() { ended <- c.CloseWrite() }()
					eventually(t, "CloseWrite is called", c.shut.Load)
				}}
				if err := Send(t.Context(), &up, "test", c, nil); !errors.Is(err, outcome) {
					t.Fatalf("Send() = %v, want %v", err, outcome)
				}
				err := <-ended
				if errors.Is(outcome, handoff.ErrNotTaken) {
					if err != nil {
						t.Errorf("CloseWrite() = %v, want nil: the connection has not moved", err)
					}
					if n, err := tc.Read(make([]byte, 1)); n != 0 || err != io.EOF {
						t.Errorf("the client reads %d, %v, want io.EOF: close_notify", n, err)
					}
					return
				}
				if !errors.Is(err, ErrMoved) {
					t.Errorf("CloseWrite() = %v, want ErrMoved", err)
				}
				next, _, err := Receive(*up.moved, c.cfg)
				if err != nil {
					t.Fatal(err)
				}
				both(t, tc, next, "undisturbed")
			})
		}
	}
}

// TestFailedWrite has a Write fail: a part of its record may be with the client, so the
// connection can't move, and can't write.
func TestFailedWrite(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		t.Run(fmt.Sprintf("moved=%t", again), func(t *testing.T) {
			t.Parallel()
			_, _, c := establishKept(t, again)
			if err := c.SetWriteDeadline(time.Unix(1, 0)); err != nil {
				t.Fatal(err)
			}
			if n, err := c.Write([]byte("lost")); n != 0 || !isTimeout(err) {
				t.Fatalf("Write() after its deadline = %d, %v, want a timeout", n, err)
			}
			if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
				t.Fatal(err)
			}
			if err := c.CanMove(); !errors.Is(err, ErrStays) {
				t.Errorf("CanMove() after a failed Write = %v, want ErrStays", err)
			}
			if n, err := c.Write([]byte("x")); n != 0 || err == nil {
				t.Errorf("Write() after a failed Write = %d, %v, want an error", n, err)
			}
		})
	}
}

// TestPartWritten has a part of a record written, which crypto/tls does not do: the
// connection does not move between.
func TestPartWritten(t *testing.T) {
	t.Parallel()
	_, c := establish(t, plain(), insecure)
	c.tap.out.pass([]byte{typeData, 3, 3, 0, 1})
	if err := c.CanMove(); !errors.Is(err, ErrBusy) {
		t.Errorf("CanMove() within a record = %v, want ErrBusy", err)
	}
	c.tap.out.pass([]byte{0})
	if err := c.CanMove(); err != nil {
		t.Errorf("CanMove() after it = %v", err)
	}
}

// TestCloseNotifyIsBounded wants a limit for the time in which an end is sent: a client
// may read nothing.
func TestCloseNotifyIsBounded(t *testing.T) {
	t.Parallel()
	for _, again := range []bool{false, true} {
		kept, _, c := establishKept(t, again)
		kept.limits = nil
		if err := c.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		if len(kept.limits) == 0 || kept.limits[0].IsZero() {
			t.Errorf("moved=%t: the deadlines of CloseWrite are %v", again, kept.limits)
		}
	}
}

// TestSilentAfterCloseNotify has a client ask for an update of the server's key after the
// server has ended its direction: nothing follows close_notify.
func TestSilentAfterCloseNotify(t *testing.T) {
	t.Parallel()
	p, c := establishPeer(t, plain())
	c = move(t, c)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	p.keyUpdate(t, 1)
	p.send(t, typeData, []byte("data"), 0)
	exchangeSent(t, c, "data")
	_ = c.raw.Close() // ReadAll tells
	const closeNotify = recordHeader + 2 + 1 + tagSize
	if b, err := io.ReadAll(p.raw); err != nil || len(b) != closeNotify {
		t.Errorf("the client gets %x, %v, want one record of %d bytes", b, err, closeNotify)
	}
}

// TestOldSecretCleared wants the secret before a KeyUpdate overwritten.
func TestOldSecretCleared(t *testing.T) {
	t.Parallel()
	s, _ := suiteOf(tls.VersionTLS13, tls.TLS_AES_128_GCM_SHA256, nil)
	old := bytes.Repeat([]byte{1}, 32)
	h, err := newHalf(tls.VersionTLS13, s, old, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.update(); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old, make([]byte, len(old))) || bytes.Equal(h.secret, old) {
		t.Errorf("the old secret is %x, the new one %x", old, h.secret)
	}
}

// A wrapper is a connection on one of this package.
type wrapper struct{ net.Conn }

func (w wrapper) NetConn() net.Conn { return w.Conn }

// TestSendWrapped passes on a connection in wrappers, and connections that are none.
func TestSendWrapped(t *testing.T) {
	t.Parallel()
	tc, c := establish(t, plain(), insecure)
	var up carrier
	if err := Send(t.Context(), &up, "test", wrapper{wrapper{c}}, nil); err != nil {
		t.Fatal(err)
	}
	next, _, err := Receive(*up.moved, c.cfg)
	if err != nil {
		t.Fatal(err)
	}
	both(t, tc, next, "moved")
	for _, nc := range []net.Conn{nil, tc.NetConn(), wrapper{tc.NetConn()}, tc} {
		if err := Send(t.Context(), &up, "test", nc, nil); !errors.Is(err, ErrStays) {
			t.Errorf("Send() of a %T = %v, want ErrStays", nc, err)
		}
	}
}
