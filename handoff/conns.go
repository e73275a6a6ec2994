package handoff

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/lifecycle"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A MovedConn is an open connection that a predecessor has passed on. Who
// receives it owns it.
type MovedConn struct {
	net.Conn
	// State is what the predecessor's program knows about the connection, bytes
	// that it has read and not used included.
	State []byte
	// Generation is the predecessor's.
	Generation uint64
}

// conns are the open connections that the upgrader knows of: those tracked, and
// those that move.
type conns struct {
	mu    sync.Mutex
	live  map[*trackedConn]struct{}
	held  map[*Hold]struct{}
	none  chan struct{} // closed while live and held are empty
	moved uint64
	cut   uint64
	cutBy map[string]uint64
	inbox map[string]chan MovedConn
}

type connCounts struct {
	open, moved, cut uint64
	cutBy            map[string]uint64
}

// The reasons for which connections are cut here: one that Track knew was open
// at the linger limit, or the successor died with one that moved.
const (
	cutTracked = "tracked"
	cutInDoubt = "in doubt"
)

func newConns() *conns {
	c := &conns{
		live:  make(map[*trackedConn]struct{}),
		held:  make(map[*Hold]struct{}),
		cutBy: make(map[string]uint64),
		inbox: make(map[string]chan MovedConn),
		none:  make(chan struct{}),
	}
	close(c.none)
	return c
}

// busyLocked has Shutdown wait from now on. The caller adds to live or held.
func (c *conns) busyLocked() {
	if len(c.live)+len(c.held) == 0 {
		c.none = make(chan struct{})
	}
}

// doneLocked is called when something was taken from live or held.
func (c *conns) doneLocked() {
	if len(c.live)+len(c.held) == 0 {
		close(c.none)
	}
}

// Track counts c among the connections that Shutdown waits for, until it is
// closed, and closes it at the linger limit. The result is c in a wrapper that
// has c's methods of [net.Conn], SyscallConn, and NetConn, which returns c.
//
// A connection that Accept has returned and Track has not seen yet is nobody's:
// a program whose accepting goroutine does not call Track before Shutdown can
// begin uses [Listener.Tracked]. A server that looks after its connections
// itself needs neither.
func (u *Upgrader) Track(c net.Conn) net.Conn { return u.conns.track(c) }

// trackedConn tells conns of its end.
type trackedConn struct {
	net.Conn
	all  *conns
	once sync.Once
}

func (c *conns) track(nc net.Conn) net.Conn {
	t := &trackedConn{Conn: nc, all: c}
	c.mu.Lock()
	c.busyLocked()
	c.live[t] = struct{}{}
	c.mu.Unlock()
	return t
}

// Close closes the connection and ends its tracking.
func (t *trackedConn) Close() error {
	t.forget()
	return t.Conn.Close()
}

// NetConn returns the connection that Track was given.
func (t *trackedConn) NetConn() net.Conn { return t.Conn }

// SyscallConn gives access to the descriptor, where there is one.
func (t *trackedConn) SyscallConn() (syscall.RawConn, error) {
	if sc, ok := t.Conn.(syscall.Conn); ok {
		return sc.SyscallConn()
	}
	return nil, fmt.Errorf("%w: %T has no descriptor", ErrUnsupported, t.Conn)
}

func (t *trackedConn) forget() {
	t.once.Do(func() {
		t.all.mu.Lock()
		defer t.all.mu.Unlock()
		delete(t.all.live, t)
		t.all.doneLocked()
	})
}

// A Hold has Shutdown wait for connections that its owner looks after.
type Hold struct {
	all  *conns
	open func() int
}

// Hold is [Upgrader.Track] for a server that looks after its connections
// itself: Shutdown waits until the hold is released, and the connections that
// open counts are in the reports. The owner closes its connections when
// LingerExpired says so, and then calls Release, for which it has 10 s. open must
// not block; it is called from any goroutine.
func (u *Upgrader) Hold(open func() int) *Hold {
	c := u.conns
	h := &Hold{all: c, open: open}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.busyLocked()
	c.held[h] = struct{}{}
	return h
}

// Release ends the hold. cut tells how many connections had to be closed by
// force, for which reason; nil if none. Only the first call counts.
func (h *Hold) Release(cut map[string]uint64) {
	c := h.all
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.held[h]; !ok {
		return
	}
	for why, n := range cut {
		c.cut += n
		c.cutBy[why] += n
	}
	delete(c.held, h)
	c.doneLocked()
}

// idle returns a channel that is closed when no tracked connection is open and
// nothing is held.
func (c *conns) idle() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.none
}

func (c *conns) open() uint64 { return c.counts().open }

func (c *conns) counts() connCounts {
	c.mu.Lock()
	n := connCounts{open: uint64(len(c.live)), moved: c.moved, cut: c.cut}
	if len(c.cutBy) > 0 {
		n.cutBy = maps.Clone(c.cutBy)
	}
	held := slices.Collect(maps.Keys(c.held))
	c.mu.Unlock()
	for _, h := range held {
		n.open += uint64(h.open())
	}
	return n
}

// cutAll closes what is open and returns how many that were.
func (c *conns) cutAll() int {
	c.mu.Lock()
	var all []*trackedConn
	for t := range c.live {
		all = append(all, t)
	}
	if n := uint64(len(all)); n > 0 {
		c.cut += n
		c.cutBy[cutTracked] += n
	}
	c.mu.Unlock()
	for _, t := range all {
		_ = t.Close() // by force
	}
	return len(all)
}

// SendConn passes conn, with its state, to the successor, whose program gets it
// from Conns under the same name. It can be called once Done is closed by a
// commit, until Shutdown. The caller must not use conn meanwhile, and state has
// to hold what was read from conn and not used; it may have up to 64 KiB.
//
// SendConn takes conn over when it returns nil: the copy here is closed, without
// a word to the peer, so that the peer sees the end when the successor closes
// its own. [ErrInDoubt] says that the successor died, or did not wake up before
// Shutdown, when it may have used the connection: conn is closed then too,
// because nobody could serve it without breaking in on another. On any other
// error the caller still owns conn: [ErrNotTaken] if the successor takes no
// connections of that name, if it is short of descriptors or gone;
// [ErrNoSuccessor] before a commit; [ErrUnsupported] if conn has no descriptor (a
// TLS connection).
func (u *Upgrader) SendConn(ctx context.Context, name string, conn net.Conn, state []byte) error {
	l, ph := u.successorLink(), u.life().Phase
	switch {
	case ph == lifecycle.Closed:
		return ErrClosed
	case ph != lifecycle.Lingering:
		return ErrNoSuccessor
	case l == nil:
		return fmt.Errorf("%w: it is a plain tableflip service", ErrNotTaken)
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%w: %T has no descriptor", ErrUnsupported, conn)
	}
	err := fdx.Borrow(sc, func(fd int) error { return l.Move(ctx, name, state, fd) })
	switch {
	case errors.Is(err, ErrInDoubt):
		u.conns.lose()
		_ = conn.Close() // if the successor lives it has its own copy
		return err
	case errors.Is(err, ErrNotTaken):
		return err
	case err != nil:
		return fmt.Errorf("handoff: send connection: %w", err)
	}
	u.conns.mu.Lock()
	u.conns.moved++
	u.conns.mu.Unlock()
	_ = conn.Close() // our copy; close(2) says nothing to the peer
	return nil
}

// lose counts a connection that was passed on to nobody.
func (c *conns) lose() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cut++
	c.cutBy[cutInDoubt]++
}

// Takes reports whether a successor is committed that takes connections under
// name: whether SendConn can be of use. Its answer stands once Done is closed.
func (u *Upgrader) Takes(name string) bool {
	l := u.successorLink()
	return l != nil && u.life().Phase == lifecycle.Lingering && l.Takes(name)
}

// Conns returns the channel of the connections that predecessors send under
// name. It must be called before Ready: the predecessor learns the names then.
// The channel is never closed; receive from it until Done is closed. What is
// not received stays with the predecessor. A name has up to 255 bytes, and
// there are up to 253 of them; what is beyond that nobody hears of.
func (u *Upgrader) Conns(name string) <-chan MovedConn {
	u.conns.mu.Lock()
	defer u.conns.mu.Unlock()
	ch, ok := u.conns.inbox[name]
	if !ok {
		ch = make(chan MovedConn)
		u.conns.inbox[name] = ch
	}
	return ch
}

// names returns the names under which connections are taken.
func (c *conns) names() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var names []string
	for name := range c.inbox {
		if len(name) <= wire.MaxName {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names[:min(len(names), wire.MaxEntries)]
}

// deliver hands a connection to the program, and reports whether that took it.
// It owns fd.
func (u *Upgrader) deliver(generation uint64, name string, state []byte, fd int) bool {
	u.conns.mu.Lock()
	ch := u.conns.inbox[name]
	u.conns.mu.Unlock()
	if ch == nil { // nobody has asked for it; the predecessor keeps it
		if err := fdx.Close(fd); err != nil {
			u.log.Warn("connection from a predecessor", "name", name, "error", err)
		}
		return false
	}
	nc, err := fdx.Conn(fd, name)
	if err != nil {
		u.log.Warn("connection from a predecessor", "name", name, "error", err)
		return false
	}
	select {
	case ch <- MovedConn{Conn: nc, State: state, Generation: generation}:
		return true
	case <-u.done:
	case <-u.closing:
	}
	_ = nc.Close() // the predecessor keeps it
	return false
}
