package session

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// errInterrupted is returned by Recv after Interrupt.
var errInterrupted = errors.New("receive interrupted")

// A Link carries messages, in order, with the descriptors that belong to them.
// Send may be called from several goroutines at once, Recv from one.
type Link interface {
	// Send borrows fds for the call.
	Send(m wire.Message, fds []int) error
	// Recv returns the next message. The caller owns the descriptors. With an
	// error that matches fdpass.ErrTruncated comes the message without them.
	// After Interrupt it returns an error between two messages. After an error
	// that fdpass.Own reports it can be called again.
	Recv() (wire.Message, []int, error)
	// Interrupt makes Recv return without having consumed a part of a message.
	Interrupt()
	// Hangup makes Recv return what has arrived, and then io.EOF.
	Hangup()
	Close() error
}

// WireLink is the Link over a unix stream connection.
type WireLink struct {
	conn *fdpass.Conn
	// sendTimeout bounds one Send: a peer that reads nothing for so long is hung.
	// 0 means no bound.
	sendTimeout time.Duration
	interrupted atomic.Bool
	finishing   bool // Recv's own: the frame at hand is the last
}

// NewWireLink takes ownership of conn. Where a system call fails in this process, Send
// and Recv give up before a peer that waits for sendTimeout does: their error can be
// told to it.
func NewWireLink(conn *fdpass.Conn, sendTimeout time.Duration) *WireLink {
	if sendTimeout > 0 {
		conn.SetPatience(sendTimeout / quietTicks * 3)
	}
	return &WireLink{conn: conn, sendTimeout: sendTimeout}
}

// Conn returns the connection below, which stays the link's.
func (l *WireLink) Conn() *fdpass.Conn { return l.conn }

// Lend calls f with a descriptor of the link, for it to be passed on: after Interrupt,
// when Recv has returned. The link carries nothing more. Where a message was cut off, Lend
// returns an error instead: the next reader would take the rest for a message.
func (l *WireLink) Lend(f func(fd int) error) error {
	fd, err := l.conn.Dup()
	if err != nil {
		return err
	}
	defer fdx.Close(fd) // what f passed on is a copy
	return f(fd)
}

// Send encodes m and sends it with fds, which it borrows.
func (l *WireLink) Send(m wire.Message, fds []int) error {
	if l.sendTimeout > 0 {
		if err := l.conn.SetWriteDeadline(time.Now().Add(l.sendTimeout)); err != nil {
			return err
		}
	}
	if err := l.conn.Send(uint16(m.Type()), wire.Append(nil, m), fds); err != nil {
		return fmt.Errorf("send %T: %w", m, err)
	}
	return nil
}

// Recv returns the next message of a type that this version knows. It skips others,
// which a newer peer may send.
func (l *WireLink) Recv() (wire.Message, []int, error) {
	for {
		if l.interrupted.Load() && !l.conn.Buffered() {
			return nil, nil, errInterrupted
		}
		f, err := l.conn.Recv()
		missing := err
		switch {
		case err == nil, errors.Is(err, fdpass.ErrTruncated):
		case l.interrupted.Load() && errors.Is(err, os.ErrDeadlineExceeded):
			if l.conn.Buffered() && !l.finishing {
				// Within a frame: the next reader must not find half of it.
				l.finishing = true
				var limit time.Time // none
				if l.sendTimeout > 0 {
					limit = time.Now().Add(l.sendTimeout)
				}
				if err := l.conn.SetReadDeadline(limit); err != nil {
					return nil, nil, err
				}
				continue
			}
			if l.conn.Buffered() {
				return nil, nil, err
			}
			return nil, nil, errInterrupted
		default:
			return nil, nil, err
		}
		m, err := wire.Decode(wire.Type(f.Type), f.Payload)
		if err == nil {
			return m, f.FDs, missing
		}
		_ = fdx.Close(f.FDs...) // the caller gets none
		if !errors.Is(err, wire.ErrUnknownType) {
			return nil, nil, err
		}
	}
}

// Interrupt makes Recv return between two frames, for good.
func (l *WireLink) Interrupt() {
	l.interrupted.Store(true)
	_ = l.conn.SetReadDeadline(time.Unix(1, 0)) // fails only on a closed connection
}

// Hangup makes Recv return what has arrived, and then [io.EOF]: where another process
// has a copy of the peer's descriptor, the kernel does not end the stream.
func (l *WireLink) Hangup() { _ = l.conn.CloseRead() } // fails only on a closed connection

// Close closes the connection.
func (l *WireLink) Close() error { return l.conn.Close() }
