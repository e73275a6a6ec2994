package sockets

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync/atomic"
	"time"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Leaving is a socket that is closed as soon as nothing waits in it. Until then
// what comes out of it is returned by another one on its address, and it is handed
// on like any other.
type Leaving struct {
	Socket
	to atomic.Pointer[Socket]
}

// newLeaving takes ownership of h, whose descriptor is fd.
func newLeaving(e wire.Socket, h Handle, fd int, to *Socket) *Leaving {
	e.Leaving = true
	l := &Leaving{Socket: Socket{Entry: e, handle: h, fd: fd, refs: 1, gate: gateOf(h)}}
	l.SetStored("")
	l.to.Store(to)
	return l
}

// Replace has s go on with h on the same address. What s had until now leaves. It
// takes ownership of h, unless it fails.
func (t *Table) Replace(s *Socket, h Handle) error {
	fd, err := fdx.Number(h)
	if err != nil {
		return err
	}
	s.gate.pause()
	l, err := s.replace(h, fd)
	if err == nil {
		t.serve(l)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s.gate.set(t.gates)
	return err
}

// replace is Replace while no call is inside of the gate.
func (s *Socket) replace(h Handle, fd int) (*Leaving, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.dropped:
		return nil, net.ErrClosed
	case s.refs > 1:
		return nil, errors.New("the socket is being passed on")
	}
	l := newLeaving(s.Entry, s.handle, s.fd, s)
	s.handle, s.fd = h, fd
	switch h := h.(type) {
	case netListener:
		s.gate.interruptBy(h.SetDeadline)
		s.Listener.inner.Store(&h)
	case netPacketConn:
		s.gate.interruptBy(h.SetReadDeadline)
		s.PacketConn.replace(h)
	}
	return l, nil
}

// ServeLeft has the arrived sockets leave that the program has not asked for, where
// it serves their addresses by another one.
func (t *Table) ServeLeft() error {
	type left struct {
		*arrival
		to *Socket
	}
	var all []left
	t.mu.Lock()
	for _, a := range t.arrived.all {
		if to := t.adoptsLocked(a); to != nil {
			a.matched = true
			all = append(all, left{a, to})
		}
	}
	t.mu.Unlock()
	var errs []error
	for _, a := range all {
		h, err := a.Source.Open(&a.Entry)
		var fd int
		if err == nil {
			fd, err = fdx.Number(h)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("%s %s: %w", a.Entry.Network, a.Entry.Bound, err))
			continue
		}
		t.serve(newLeaving(a.Entry, h, fd, a.to))
	}
	return errors.Join(errs...)
}

// adoptsLocked returns the socket that gets what comes out of a, or nil.
func (t *Table) adoptsLocked(a *arrival) *Socket {
	_, passed := a.Source.(Descriptor) // tableflip closes its own
	if a.matched || a.left || !passed || !Inet(&a.Entry) {
		return nil
	}
	to := t.boundLocked(&a.Entry)
	if i := slices.IndexFunc(to, func(s *Socket) bool { return !s.deferred.Load() }); i >= 0 {
		return to[i]
	}
	return nil
}

// Leaving returns the sockets that leave.
func (t *Table) Leaving() []*Leaving {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.leaving)
}

// Left returns a channel that is closed as soon as no socket leaves.
func (t *Table) Left() <-chan struct{} {
	t.mu.Lock()
	defer t.mu.Unlock()
	left := make(chan struct{})
	t.left = append(t.left, left)
	t.leftLocked()
	return left
}

// leftLocked closes what Left has returned, if no socket leaves.
func (t *Table) leftLocked() {
	if len(t.leaving) > 0 {
		return
	}
	for _, left := range t.left {
		close(left)
	}
	t.left = nil
}

// Leave closes l for good.
func (t *Table) Leave(l *Leaving) error {
	t.mu.Lock()
	if i := slices.Index(t.leaving, l); i >= 0 {
		t.leaving = slices.Delete(t.leaving, i, i+1)
		t.leftLocked()
	}
	t.mu.Unlock()
	_, err := l.Drop()
	return err
}

// abandon has others serve what leaves to s, which its user has closed.
func (t *Table) abandon(s *Socket) error {
	var errs []error
	for _, l := range t.Leaving() {
		if l.to.Load() != s {
			continue
		}
		if others := t.Bound(&l.Entry); len(others) > 0 {
			l.to.Store(others[0])
		} else {
			errs = append(errs, t.Leave(l))
		}
	}
	s.leave()
	return errors.Join(errs...)
}

// serve serves l until it is closed.
func (t *Table) serve(l *Leaving) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		_, _ = l.Drop() // as the others were
		return
	}
	defer t.mu.Unlock()
	t.leaving = append(t.leaving, l)
	if t.gates != gatePaused {
		l.gate.set(t.gates)
	}
	t.pumps.Go(l.pump) // ends when its gate is shut
}

func (l *Leaving) pump() {
	for l.gate.enter() == nil {
		var deliver func(*Socket) bool
		var err error
		switch h := l.Handle().(type) {
		case netListener:
			deliver, err = accept(h)
		case *net.UDPConn:
			deliver, err = read(h)
		}
		l.gate.exit()
		switch {
		case err == nil && deliver != nil:
			for !deliver(l.to.Load()) { // its user has closed that one
				if s := l.to.Load(); s.closed() {
					deliver(nil)
					break
				}
			}
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil && !errors.Is(err, os.ErrDeadlineExceeded):
			time.Sleep(5 * time.Millisecond) // short of descriptors, most likely
		}
	}
}

// accept returns a function that gives the next connection to another socket, and
// closes it where there is none. It reports false if that socket is closed.
func accept(ln netListener) (deliver func(*Socket) bool, err error) {
	c, err := ln.Accept()
	if err != nil {
		return nil, err
	}
	return func(to *Socket) bool {
		if to == nil {
			_ = c.Close() // no socket of this process has the address any more
			return true
		}
		return to.Listener.queue.push(c, to.gone)
	}, nil
}

// read is accept for datagrams.
func read(pc *net.UDPConn) (deliver func(*Socket) bool, err error) {
	buf, oob := make([]byte, 1<<16), make([]byte, 1<<10)
	n, oobn, flags, from, err := pc.ReadMsgUDPAddrPort(buf, oob)
	if err != nil {
		return nil, err
	}
	d := datagram{slices.Clone(buf[:n]), slices.Clone(oob[:oobn]), flags, from}
	return func(to *Socket) bool { return to == nil || to.PacketConn.queue.push(d, to.gone) }, nil
}

// gateOf returns a gate for h, which is paused; nil for a file.
func gateOf(h Handle) *gate {
	switch h := h.(type) {
	case netListener:
		return newGate("accept", h.Addr(), h.SetDeadline)
	case netPacketConn:
		return newGate("read", h.LocalAddr(), h.SetReadDeadline)
	}
	return nil
}
