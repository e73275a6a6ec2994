package probes

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// keepTime is how long a probe stays known after its end. It may wait that long in
// the queue of a listener from which nothing is accepted.
const keepTime = 5 * time.Minute

// Probe is one connection to an own listener.
type Probe struct {
	ends  ends
	conn  *net.TCPConn // if it was accepted
	ended bool
	inode uint32
}

// ends are those of a connection, as the listener sees them.
type ends struct{ server, client netip.AddrPort }

var (
	count atomic.Int64 // of known, read on each Accept
	mu    sync.Mutex
	known = make(map[ends]*Probe)
)

// Add makes a probe known before it connects. Until its end, its client holds the
// port.
func Add(server, client netip.AddrPort) *Probe {
	p := &Probe{ends: ends{server, client}}
	mu.Lock()
	defer mu.Unlock()
	known[p.ends] = p
	count.Store(int64(len(known)))
	return p
}

// End says that the client resets the connection. inode is the own listener to
// which it has come, 0 where none is known.
func (p *Probe) End(inode uint32) {
	mu.Lock()
	defer mu.Unlock()
	p.ended, p.inode = true, inode
	if p.conn != nil {
		discard(p.conn)
		p.forget()
		return
	}
	time.AfterFunc(keepTime, func() {
		mu.Lock()
		defer mu.Unlock()
		p.forget()
	})
}

// forget makes p unknown. The caller has mu.
func (p *Probe) forget() {
	if known[p.ends] == p {
		delete(known, p.ends)
		count.Store(int64(len(known)))
	}
}

// Waiting returns how many probes wait in the queue of the listener.
func Waiting(inode uint32) (n int) {
	mu.Lock()
	defer mu.Unlock()
	for _, p := range known {
		if p.ended && p.inode == inode {
			n++
		}
	}
	return n
}

// Swallow reports whether c, which has come out of an accept queue, is a probe, and
// takes it over then. It costs the load of an integer while no probe is known.
//
// Another client can have got the port of a probe that has ended; that probe's
// connection is reset, the client's is not.
func Swallow(c net.Conn) bool {
	if count.Load() == 0 {
		return false
	}
	tc, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	at := ends{addrPort(tc.LocalAddr()), addrPort(tc.RemoteAddr())}
	for wait := time.Millisecond; ; wait *= 2 {
		mu.Lock()
		p := known[at]
		dead := p != nil && isReset(tc)
		switch {
		case p != nil && !p.ended && !dead:
			p.conn = tc // for the client to look at
		case dead:
			discard(tc)
			if p.ended {
				p.forget()
			} // else it is an older one from that port
		}
		mu.Unlock()
		if p == nil || !p.ended || dead {
			return p != nil
		}
		if wait > 8*time.Millisecond {
			return false
		}
		time.Sleep(wait) // the reset may be on its way
	}
}

// discard closes a connection to oneself without TIME_WAIT.
func discard(tc *net.TCPConn) {
	_ = tc.SetLinger(0)
	_ = tc.Close()
}

func addrPort(a net.Addr) netip.AddrPort {
	ta, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := ta.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// isReset reports whether the connection has no peer any more (inet_getname).
func isReset(tc *net.TCPConn) (reset bool) {
	_ = fdx.Borrow(tc, func(fd int) error {
		_, err := unix.Getpeername(fd)
		reset = errors.Is(err, unix.ENOTCONN)
		return nil
	})
	return reset
}
