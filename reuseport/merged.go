package reuseport

import (
	"context"
	"errors"
	"net"
	"sync"
)

// merged is a Group as one listener.
type merged struct {
	group *localGroup
	conns chan accepted
	stop  chan struct{} // closed by Close

	mu      sync.Mutex
	serving int
	done    chan struct{} // closed when no member is left to accept from
	once    sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listener returns the group as one listener: Accept returns connections of all members,
// those added later included, and [ErrClosed] when no member is left and the last
// connection was returned. If a member is added after that, Accept returns its
// connections. Close closes the group. Each call returns the same listener; use either it
// or the members' own Accept, for each connection comes out once. Each member has a
// goroutine, which ends when the member closes and holds at most one connection that
// Accept has not returned yet.
func (g *Group) Listener() net.Listener {
	local := g.local
	local.mu.Lock()
	defer local.mu.Unlock()
	if local.merged == nil {
		m := &merged{group: local, conns: make(chan accepted), stop: make(chan struct{}), done: make(chan struct{})}
		close(m.done) // there is no member yet
		for _, s := range local.socks {
			m.serve(s.owner.(*Listener))
		}
		local.merged = m
	}
	return local.merged
}

// serve accepts from l until it closes.
func (m *merged) serve(l *Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.serving++; m.serving == 1 {
		m.done = make(chan struct{}) // the one before is closed
	}
	go func() { // ends with l, or with m if Accept is not called
		defer m.ended()
		for {
			c, err := l.Accept()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			select {
			case m.conns <- accepted{c, err}:
			case <-m.stop:
				if c != nil {
					_ = c.Close() // Close was called, which drops what waits
				}
			}
		}
	}()
}

func (m *merged) ended() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.serving--; m.serving == 0 {
		close(m.done)
	}
}

// ending returns what is closed when the members of now have ended.
func (m *merged) ending() <-chan struct{} {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done
}

func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.conns:
		return a.conn, a.err
	case <-m.ending():
		return nil, ErrClosed
	}
}

func (m *merged) Close() error {
	m.once.Do(func() { close(m.stop) })
	err := m.group.close()
	<-m.ending()
	return err
}

// Drain is [Group.Drain].
func (m *merged) Drain(ctx context.Context) (Report, error) { return m.group.drain(ctx) }

func (m *merged) Addr() net.Addr { return m.group.bound() }
