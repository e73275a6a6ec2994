package reuseport

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/seed-11c92bf9/baton/reuseport/internal/diag"
)

// probes are the connections that this process makes to its own groups to learn
// which member the kernel chooses. They never come out of Accept. They are the
// process's and not a group's: what one group has probed can come out of a
// duplicate that another group, or its user, accepts from.
var probes probeSet

// probeSet knows probes.
type probeSet struct {
	n  atomic.Int32 // len(by), read on each Accept
	mu sync.Mutex
	// by has them as the server sees them: a process can have groups in several
	// network namespaces, and so one client's end more than once.
	by map[diag.Tuple]*probe
	// socks has the listeners of all groups of this process, while they are
	// in their crew.
	socks map[*socket]*crew
}

// know notes that s is in c; unknow, that it no longer is.
func (ps *probeSet) know(s *socket, c *crew) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.socks == nil {
		ps.socks = make(map[*socket]*crew)
	}
	ps.socks[s] = c
}

func (ps *probeSet) unknow(s *socket) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.socks, s)
}

func (ps *probeSet) knows(s *socket) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	return ps.socks[s] != nil
}

// ofOthers returns the listeners of this process that are not in c.
func (ps *probeSet) ofOthers(c *crew) (socks []*socket) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	for s, in := range ps.socks {
		if in != c {
			socks = append(socks, s)
		}
	}
	return socks
}

// probe is one such connection.
type probe struct {
	crew   *crew
	tuple  diag.Tuple
	landed chan *socket // gets the member if an Accept saw the probe; has room for it
	in     []*socket    // it is in the queue of one of these, if in one of ours
	free   func()       // lets others use the client's port; nil until the prober is done
}

// gone is called without the lock once p is in no set.
func (p *probe) gone() {
	if p.free != nil {
		p.free()
	}
}

func (ps *probeSet) add(c *crew, t diag.Tuple) *probe {
	p := &probe{crew: c, tuple: t, landed: make(chan *socket, 1)}
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.by == nil {
		ps.by = make(map[diag.Tuple]*probe)
	}
	ps.by[t] = p
	ps.n.Store(int32(len(ps.by)))
	return p
}

// forget ends p. It is for probes that went to other processes; one that is in a
// queue of this process has to come out of it first, or a client would see it.
func (ps *probeSet) forget(p *probe) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.by[p.tuple] == p {
		delete(ps.by, p.tuple)
		ps.n.Store(int32(len(ps.by)))
	}
}

// keep notes that p is in the queue of one of in, and calls free once it has come
// out. It reports whether p was still to come; if not, free is the caller's.
func (ps *probeSet) keep(p *probe, in []*socket, free func()) bool {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.by[p.tuple] != p {
		return false
	}
	p.in, p.free = in, free
	return true
}

// among returns how many probes are in the queues of socks.
func (ps *probeSet) among(socks []*socket) (n int) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	elsewhere := func(s *socket) bool { return !slices.Contains(socks, s) }
	for _, p := range ps.by {
		if len(p.in) > 0 && !slices.ContainsFunc(p.in, elsewhere) {
			n++
		}
	}
	return n
}

// closed forgets the probes that were in the queue of s, and can't be in another
// one. No Accept of s may be under way: it can have one in hand.
func (ps *probeSet) closed(s *socket) {
	ps.mu.Lock()
	var gone []*probe
	for t, p := range ps.by {
		i := slices.Index(p.in, s)
		if i < 0 {
			continue
		}
		if p.in = slices.Delete(p.in, i, i+1); len(p.in) == 0 {
			delete(ps.by, t)
			gone = append(gone, p)
		}
	}
	ps.n.Store(int32(len(ps.by)))
	ps.mu.Unlock()
	for _, p := range gone {
		p.gone()
	}
}

// lostTime is how long a probe stays known that came out of a queue, or will,
// without our knowledge.
const lostTime = time.Second

// left is closed where somebody else accepts from s as well.
func (ps *probeSet) left(s *socket) {
	if ps.n.Load() > 0 {
		time.AfterFunc(lostTime, func() { ps.closed(s) })
	}
}

// arrived reports whether tc is a probe, and ends it then. from tells which
// member it came out of.
func (ps *probeSet) arrived(tc *net.TCPConn, from func(*crew) *socket) bool {
	if ps.n.Load() == 0 {
		return false
	}
	t := diag.Tuple{Local: addrPort(tc.LocalAddr()), Remote: addrPort(tc.RemoteAddr())}
	ps.mu.Lock()
	p := ps.by[t]
	if p != nil {
		delete(ps.by, t)
		ps.n.Store(int32(len(ps.by)))
	}
	ps.mu.Unlock()
	if p == nil {
		return false
	}
	p.landed <- from(p.crew)
	_ = tc.SetLinger(0) // no TIME_WAIT for a connection to oneself
	_ = tc.Close()
	p.gone()
	return true
}

func addrPort(a net.Addr) netip.AddrPort {
	ta, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}
	}
	ap := ta.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap().WithZone(""), ap.Port())
}

// IsProbe reports whether c, which has come out of the accept queue of ln, is a
// connection that this process has made to its own group to find out what the
// kernel does, and closes it then. [Listener.Accept] keeps those to itself. Who
// has a listener of his own, and a duplicate of it in a [Group] by [Group.Adopt],
// calls it for each connection: its client is nobody. It costs the load of an
// integer while no group is probed.
func IsProbe(ln syscall.Conn, c net.Conn) bool {
	tc, ok := c.(*net.TCPConn)
	return ok && probes.arrived(tc, func(c *crew) *socket {
		inode, err := inodeOfConn(ln)
		if err != nil {
			return nil // closed meanwhile
		}
		return c.byInode(inode)
	})
}
