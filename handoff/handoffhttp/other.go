package handoffhttp

import (
	"errors"
	"io"
	"net"
)

// otherConn is a connection of a listener that is not of package net. It can't move.
// The wrapper is there for the end of a connection that a handler has taken.
type otherConn struct {
	net.Conn
	conn
}

func (o *otherConn) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if n > 0 {
		o.mu.Lock()
		o.gotBytes = true
		o.mu.Unlock()
	}
	return n, err
}

// ReadFrom keeps what the connection has for it.
func (o *otherConn) ReadFrom(r io.Reader) (int64, error) {
	if to, ok := o.Conn.(io.ReaderFrom); ok {
		return to.ReadFrom(r)
	}
	return io.Copy(struct{ io.Writer }{o.Conn}, r)
}

// CloseWrite is for net/http and protocols that take a connection from it.
func (o *otherConn) CloseWrite() error {
	if c, ok := o.Conn.(interface{ CloseWrite() error }); ok {
		return c.CloseWrite()
	}
	return errors.ErrUnsupported
}

func (o *otherConn) Close() error {
	o.mu.Lock()
	forget := o.phase == phaseHijacked
	o.phase = phaseClosed
	o.mu.Unlock()
	err := o.Conn.Close()
	if forget {
		o.srv.forget(&o.conn)
	}
	return err
}

func (o *otherConn) NetConn() net.Conn { return o.Conn }
func (o *otherConn) tracked() *conn    { return &o.conn }
