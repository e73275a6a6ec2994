package session_test

import (
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/session"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// memLink is a Link in memory, of channels alone, so that a synctest bubble
// knows when nothing moves any more. It behaves as a unix stream connection
// does: what was sent before the end is read before the end.
type memLink struct {
	in, out     chan memMessage
	closed      chan struct{}
	peerClosed  chan struct{}
	interrupted chan struct{}
	over        chan struct{} // by Hangup
	peerOver    chan struct{} // by the peer's
	closing     sync.Once
	stopping    sync.Once
	hanging     sync.Once

	// onSend is called in Send, before m is on its way: a process that is
	// stopped at this point stays in it.
	onSend func(m wire.Message)
	// onHangup is called in Hangup, before it takes effect.
	onHangup func()
	// refuse, if it is not nil, returns why m is not sent.
	refuse func(m wire.Message) error
}

type memMessage struct {
	msg wire.Message
	fds []int
	err error // what Recv returns, for a peer that sends garbage
}

// memPair returns the two ends of a connection. In a bubble it has to be called
// there.
func memPair() (a, b *memLink) {
	ab, ba := make(chan memMessage, 10_000), make(chan memMessage, 10_000)
	ca, cb := make(chan struct{}), make(chan struct{})
	oa, ob := make(chan struct{}), make(chan struct{})
	a = &memLink{in: ba, out: ab, closed: ca, peerClosed: cb, interrupted: make(chan struct{}), over: oa, peerOver: ob}
	b = &memLink{in: ab, out: ba, closed: cb, peerClosed: ca, interrupted: make(chan struct{}), over: ob, peerOver: oa}
	return a, b
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *memLink) Send(m wire.Message, fds []int) error {
	if l.onSend != nil {
		l.onSend(m)
	}
	if l.refuse != nil {
		if err := l.refuse(m); err != nil {
			return err
		}
	}
	switch {
	case isClosed(l.closed):
		return net.ErrClosed
	case isClosed(l.peerClosed), isClosed(l.peerOver):
		return syscall.EPIPE
	}
	l.out <- memMessage{msg: m, fds: append([]int(nil), fds...)}
	return nil
}

// garbage makes the peer's Recv fail with err.
func (l *memLink) garbage(err error) { l.out <- memMessage{err: err} }

func (l *memLink) Recv() (wire.Message, []int, error) {
	if isClosed(l.interrupted) {
		return nil, nil, session.ErrInterrupted
	}
	if isClosed(l.closed) {
		return nil, nil, net.ErrClosed
	}
	select {
	case m := <-l.in:
		return m.msg, m.fds, m.err
	default:
	}
	select {
	case m := <-l.in:
		return m.msg, m.fds, m.err
	case <-l.closed:
		return nil, nil, net.ErrClosed
	case <-l.interrupted:
		return nil, nil, session.ErrInterrupted
	case <-l.over:
	case <-l.peerClosed:
	}
	select {
	case m := <-l.in:
		return m.msg, m.fds, m.err
	default:
		return nil, nil, io.EOF
	}
}

func (l *memLink) Interrupt() { l.stopping.Do(func() { close(l.interrupted) }) }

func (l *memLink) Hangup() {
	l.hanging.Do(func() {
		if l.onHangup != nil {
			l.onHangup()
		}
		close(l.over)
	})
}

func (l *memLink) Close() error {
	l.closing.Do(func() { close(l.closed) })
	return nil
}
