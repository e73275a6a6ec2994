package handofftls

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// A Conn is the server's end of a TLS connection that can move. crypto/tls serves it
// until it moves, and a record layer of this package in the successor. Its methods may be
// called from several goroutines, as those of a [tls.Conn].
type Conn struct {
	raw net.Conn
	cfg *Config

	tc     *tls.Conn // nil after a move
	tap    *tap      // nil after a move, and where it never moves
	layer  *layer    // after a move
	state  *tls.ConnectionState
	pinned atomic.Bool // by Stay
	gone   atomic.Bool // moved, or given up
	shut   atomic.Bool // Close or CloseWrite was called

	rmu     sync.Mutex // while a Read is in progress, or a move
	got     uint64     // data that Read has returned
	silent  bool       // the last Read has found no data: crypto/tls has none
	readErr error      // for good
	cannot  error      // why it never moves
	keys    *keys

	wmu sync.Mutex // while a Write or CloseWrite is in progress, or a move; after rmu
}

// Server makes the handshake on conn, as a server with cfg.TLS. The result owns conn. When
// ctx ends before the handshake has, Server returns an error; the caller then closes conn.
// The error is crypto/tls's, a [tls.RecordHeaderError] among others.
//
// conn needs a descriptor (a *[net.TCPConn] or *[net.UnixConn], or one in a wrapper with
// SyscallConn that does not read ahead) to move.
func Server(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	if err := cfg.Probe(); err != nil {
		c := &Conn{raw: conn, cfg: cfg, cannot: stays("%w", err), tc: tls.Server(conn, cfg.TLS)}
		if err := c.tc.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		return c, nil
	}
	return serve(ctx, conn, cfg)
}

// serve is Server, on a tap.
func serve(ctx context.Context, conn net.Conn, cfg *Config) (*Conn, error) {
	c := &Conn{raw: conn, cfg: cfg}
	c.tap = &tap{Conn: conn, shaking: true}
	c.tc = tls.Server(c.tap, cfg.base)
	if err := c.tc.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	st := c.tc.ConnectionState()
	c.keys, c.cannot = c.tap.keys(&st, cfg)
	c.tap.shaken()
	if c.cannot != nil {
		c.keys.forget()
		c.keys = nil
	}
	c.tap.logged, c.tap.flight = logged{}, nil
	return c, nil
}

// CanMove returns nil if the connection can move now, [ErrBusy] if it may later, and an
// error that matches [ErrStays], with the reason, if it never can: its session of TLS 1.2
// was resumed, its cipher suite is none of TLS 1.3's or an AEAD's, its client has updated
// its keys or padded its records before the first move, or it has ended. CanMove needs
// that no Read is in progress: end one by a read deadline in the past. A connection that
// waits for data can move for certain only after such a Read. After the first call, Read
// takes no more than one record from the kernel: a client that always sends more leaves a
// moment for a move between two of them.
func (c *Conn) CanMove() error {
	if !c.rmu.TryLock() {
		return ErrBusy
	}
	defer c.rmu.Unlock()
	if !c.wmu.TryLock() {
		return ErrBusy
	}
	defer c.wmu.Unlock()
	return c.canMoveLocked(false)
}

// canMoveLocked is CanMove. With stop it ends writing here, by crypto/tls itself too, if
// the connection can move: under the lock under which it has looked, so that nothing was
// written since.
func (c *Conn) canMoveLocked(stop bool) error {
	if !c.pinned.Load() { // else the user of Stay reads, without rmu
		c.exact()
	}
	switch {
	case c.gone.Load():
		return ErrMoved
	case c.cannot != nil:
		return c.cannot
	case c.pinned.Load():
		return stays("its *tls.Conn is in use")
	}
	writing, moved, idle := c.writer()
	if l := c.layer; l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
	}
	if !writing.TryLock() {
		return ErrBusy
	}
	defer writing.Unlock()
	if c.shut.Load() || c.readErr != nil {
		return stays("it has ended")
	}
	err := idle()
	if err == nil && stop {
		*moved = true
	}
	return err
}

// writer returns the lock of what writes to the client, with its field that ends writing,
// and what reports why it can't move now.
func (c *Conn) writer() (mu *sync.Mutex, moved *bool, idle func() error) {
	if l := c.layer; l != nil {
		return &l.wmu, &l.moved, l.idle
	}
	return &c.tap.mu, &c.tap.moved, c.idle
}

// resume lets writing begin again after a move that has failed.
func (c *Conn) resume() {
	mu, moved, _ := c.writer()
	mu.Lock()
	defer mu.Unlock()
	*moved = false
}

// idle reports why a connection of crypto/tls can't move now. The caller holds the tap's
// lock.
func (c *Conn) idle() error {
	t := c.tap
	switch {
	case t.broken || t.in.odd || t.out.odd:
		return stays("it has ended, or has had a record that is not encrypted")
	case !t.in.between() || !t.out.between() || len(t.ahead) > 0:
		return ErrBusy
	case t.in.length == t.in.count*c.keys.overhead+c.got:
		// Each record's body is data and overhead. So no record had anything else: no
		// padding, no alert, no KeyUpdate; and crypto/tls has no data that Read has not
		// returned.
		return nil
	case c.silent:
		return stays("its client has updated its keys or padded its records")
	}
	return ErrBusy // there may be data that Read has not returned
}

// exact has Reads end with a record from now on, so that a client that always sends more
// leaves a moment for a move.
func (c *Conn) exact() {
	if l := c.layer; l != nil {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.exact = true
	} else if c.tap != nil {
		c.tap.exact = true
	}
}

// Read reads data, as [tls.Conn.Read] does.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.gone.Load() {
		return 0, ErrMoved
	}
	if c.layer != nil {
		return c.layer.read(p)
	}
	n, err := c.tc.Read(p)
	c.got += uint64(n)
	c.silent = n == 0 && err != nil
	if err != nil {
		var ne net.Error
		if !errors.As(err, &ne) || !ne.Timeout() {
			c.readErr = err
		}
	}
	return n, err
}

// Write writes data, as [tls.Conn.Write] does. A Write that has timed out has ended the
// connection for writing.
func (c *Conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.gone.Load() {
		return 0, ErrMoved
	}
	if c.layer != nil {
		return c.layer.write(p)
	}
	return c.tc.Write(p) // the tap notes a failure
}

// Close closes the connection, after a close_notify alert to the client, as
// [tls.Conn.Close] does. It interrupts a Read or Write that is in progress. On a
// connection that has moved it sends nothing.
func (c *Conn) Close() error {
	c.shut.Store(true)
	switch {
	case c.gone.Load():
		return nil // SendConn has closed it
	case c.layer != nil:
		return c.layer.end()
	}
	return c.tc.Close()
}

// CloseWrite sends a close_notify alert, as [tls.Conn.CloseWrite] does. It waits for a
// Write, or a [Send], that is in progress. On a connection that has moved it sends nothing
// and returns [ErrMoved].
func (c *Conn) CloseWrite() error {
	c.shut.Store(true)
	c.wmu.Lock()
	defer c.wmu.Unlock()
	switch {
	case c.gone.Load():
		return ErrMoved
	case c.layer != nil:
		return c.layer.closeNotify()
	}
	return c.tc.CloseWrite()
}

// ConnectionState returns what is known of the connection. It is the same before and after
// a move, but for ExportKeyingMaterial, which returns an error after one: the secret that
// it needs does not move.
func (c *Conn) ConnectionState() tls.ConnectionState {
	if c.state != nil {
		return *c.state
	}
	return c.tc.ConnectionState()
}

// Stay returns the *[tls.Conn] of the connection, for a user that needs one, as HTTP/2 of
// net/http does. The connection then can't move; use only the result, and close it. Stay
// returns nil for a connection that has moved here.
func (c *Conn) Stay() *tls.Conn {
	if c.layer != nil {
		return nil
	}
	c.pinned.Store(true)
	return c.tc
}

// NetConn returns the connection below TLS. Reading from it, or writing to it, breaks the
// TLS connection.
func (c *Conn) NetConn() net.Conn { return c.raw }

// LocalAddr returns the address of this end.
func (c *Conn) LocalAddr() net.Addr { return c.raw.LocalAddr() }

// RemoteAddr returns the client's address.
func (c *Conn) RemoteAddr() net.Addr { return c.raw.RemoteAddr() }

// SetDeadline is [net.Conn.SetDeadline].
func (c *Conn) SetDeadline(t time.Time) error { return c.raw.SetDeadline(t) }

// SetReadDeadline is [net.Conn.SetReadDeadline]. A Read that has timed out can be repeated.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.raw.SetReadDeadline(t) }

// SetWriteDeadline is [net.Conn.SetWriteDeadline].
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.raw.SetWriteDeadline(t) }
