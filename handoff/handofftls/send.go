package handofftls

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/seed-11c92bf9/baton/handoff"
)

// A Sender is a *[handoff.Upgrader].
type Sender interface {
	// SendConn is [handoff.Upgrader.SendConn].
	SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error
}

// Name returns the name under which the connections move that Send gets under name: call
// [handoff.Upgrader.Conns] and [handoff.Upgrader.Takes] with it. Whether there is a
// ChaCha20Poly1305, and the format of the state, are parts of it. So a successor that could
// not receive some of the connections takes none.
func (cfg *Config) Name(name string) string {
	ciphers := ""
	if cfg.ChaCha20Poly1305 != nil {
		ciphers = "+chacha20"
	}
	return fmt.Sprintf("tls/%d%s %s", stateFormat, ciphers, name)
}

// Send passes conn, with the user's state for it, to the successor, whose program gets it
// from Conns of the Config's Name(name) and gives it to [Receive]. conn is a *[Conn], or a wrapper
// whose NetConn method leads to one. up is the [handoff.Upgrader]. The user's state may
// have up to 64 KiB, less what the connection itself needs: a few hundred bytes, and the
// certificates of the client.
//
// When Send returns nil, the successor has the connection. [handoff.ErrInDoubt] says that
// the successor may have used it: Send has closed it, without a byte to the client. On any
// other error the caller still owns conn, and serves it on: those of
// [handoff.Upgrader.SendConn], which no successor has used it after, and those of
// [Conn.CanMove]. While Send runs, Write and CloseWrite wait. After nil and ErrInDoubt,
// Read, Write and CloseWrite return [ErrMoved], and Close sends nothing.
//
// The keys of the connection go over the control socket, and over nothing else. Send
// overwrites the encoded state when SendConn has returned, whatever that returns. After nil
// and ErrInDoubt it also overwrites this package's copies of the two traffic secrets (TLS
// 1.2: keys and IVs). After another error they stay: the connection needs them. Send does
// not overwrite state, what crypto/tls itself has of the keys, the keys within an AEAD, and
// the buffers of the control connection.
func Send(ctx context.Context, up Sender, name string, conn net.Conn, state []byte) error {
	c := find(conn)
	if c == nil {
		return stays("%T is none of this package", conn)
	}
	if !c.rmu.TryLock() {
		return ErrBusy
	}
	defer c.rmu.Unlock()
	if !c.wmu.TryLock() {
		return ErrBusy
	}
	defer c.wmu.Unlock()
	// Nothing is written here while the successor may have the keys.
	if err := c.canMoveLocked(true); err != nil {
		return err
	}
	b := c.moving().encode(state)
	err := up.SendConn(ctx, c.cfg.Name(name), c.raw, b)
	clear(b)
	if err != nil && !errors.Is(err, handoff.ErrInDoubt) {
		c.resume()
		return err
	}
	c.gone.Store(true)
	c.keys.forget()
	if c.layer != nil {
		c.layer.forget()
	}
	return err
}

// find returns the connection that nc is, or that it wraps.
func find(nc net.Conn) *Conn {
	for nc != nil {
		if c, ok := nc.(*Conn); ok {
			return c
		}
		w, ok := nc.(interface{ NetConn() net.Conn })
		if !ok {
			return nil
		}
		nc = w.NetConn()
	}
	return nil
}

// moving returns what moves. The caller has stopped the connection.
func (c *Conn) moving() *moving {
	st := c.ConnectionState()
	m := &moving{version: st.Version, suite: st.CipherSuite, state: &st}
	if l := c.layer; l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wmu.Lock()
		defer l.wmu.Unlock()
		m.in, m.out, m.inSeq, m.outSeq = l.in.secret, l.out.secret, l.in.seq, l.out.seq
		return m
	}
	c.tap.mu.Lock()
	defer c.tap.mu.Unlock()
	m.in, m.out = c.keys.in, c.keys.out
	m.inSeq, m.outSeq = c.keys.inSeq+c.tap.in.count, c.keys.outSeq+c.tap.out.count
	return m
}

func (l *layer) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wmu.Lock()
	defer l.wmu.Unlock()
	l.in.forget()
	l.out.forget()
}

// Receive makes a Conn of a connection that a predecessor has sent with Send, and returns
// the user's state for it. The Conn owns mc.Conn. Receive overwrites mc.State, also when it
// returns an error, and sends nothing. The Conn has copies of the two secrets, which its
// next move overwrites, and KeyUpdate. After an error, which matches [ErrState], the caller closes mc.Conn: the
// predecessor has given it up.
func Receive(mc handoff.MovedConn, cfg *Config) (c *Conn, state []byte, err error) {
	if err := cfg.Probe(); err != nil {
		clear(mc.State)
		return nil, nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return receive(mc, cfg)
}

// receive is Receive, without the probe.
func receive(mc handoff.MovedConn, cfg *Config) (c *Conn, state []byte, err error) {
	defer clear(mc.State)
	m, user, err := decode(mc.State)
	if err != nil {
		return nil, nil, err
	}
	s, ok := suiteOf(m.version, m.suite, cfg.ChaCha20Poly1305)
	if !ok {
		clear(m.in)
		clear(m.out)
		return nil, nil, fmt.Errorf("%w: no cipher suite %s of %s", ErrState, tls.CipherSuiteName(m.suite), tls.VersionName(m.version))
	}
	l := &layer{raw: mc.Conn, version: m.version}
	var in, out error
	l.in, in = newHalf(m.version, s, m.in, m.inSeq)
	l.out, out = newHalf(m.version, s, m.out, m.outSeq)
	if err := errors.Join(in, out); err != nil {
		clear(m.in)
		clear(m.out)
		return nil, nil, fmt.Errorf("%w: %w", ErrState, err)
	}
	return &Conn{raw: mc.Conn, cfg: cfg, layer: l, state: m.state}, append([]byte(nil), user...), nil
}
