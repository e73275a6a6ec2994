package reuseport

import (
	"errors"
	"net"
	"sync"
)

// merged is a Group as one listener.
type merged struct {
	group *Group
	conns chan accepted
	stop  chan struct{} // closed by Close
	done  chan struct{} // closed when no member is left to accept from

	mu      sync.Mutex
	serving int
	once    sync.Once
}

type accepted struct {
	conn net.Conn
	err  error
}

// Listener returns the group as one listener: Accept returns connections of all
// members, those added later included, and [ErrClosed] when no member is left
// and the last connection was handed out. Close closes the group. Each call
// returns the same listener; use either it or the members' own Accept, for each
// connection comes out once. One goroutine for each member, which ends when the
// member closes, holds at most one connection that nobody has asked for yet.
func (g *Group) Listener() net.Listener {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.merged == nil {
		g.merged = &merged{
			group: g,
			conns: make(chan accepted),
			stop:  make(chan struct{}),
			done:  make(chan struct{}),
		}
		for _, l := range g.members {
			g.merged.serve(l)
		}
		if len(g.members) == 0 {
			close(g.merged.done)
		}
	}
	return g.merged
}

// serve accepts from l until it closes.
func (m *merged) serve(l *Listener) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.serving++
	go func() { // ends with l, or with m if nobody calls Accept
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

func (m *merged) Accept() (net.Conn, error) {
	select {
	case a := <-m.conns:
		return a.conn, a.err
	case <-m.done:
		return nil, ErrClosed
	}
}

func (m *merged) Close() error {
	m.once.Do(func() { close(m.stop) })
	err := m.group.Close()
	<-m.done
	return err
}

func (m *merged) Addr() net.Addr { return m.group.Addr() }
