package sockets

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A Key identifies a socket to the program: what it asked for.
type Key struct {
	Kind    wire.SocketKind
	Name    string
	Network string
	Address string
}

// KeyOf returns the key under which the program asked for e.
func KeyOf(e *wire.Socket) Key { return Key{e.Kind, e.Name, e.Network, e.Address} }

// String returns the name, or else the network and the address.
func (k Key) String() string {
	if k.Name != "" {
		return fmt.Sprintf("%q", k.Name)
	}
	return k.Network + " " + k.Address
}

// An Origin says how a socket that this process has not bound came to it. The zero
// Origin is that of a socket without an entry: plain tableflip sends no manifest.
type Origin struct {
	// Entry is what the predecessor's manifest or systemd's store says of the socket.
	Entry *wire.Socket
	// Stored is the name under which systemd's store has the socket, or empty.
	Stored string
}

// A Socket is one descriptor that is handed on: a listener, a datagram socket
// or a file, with what the manifest says of it. Hold, Open, Pause, Shut and Drop of a nil
// one do nothing.
type Socket struct {
	Entry wire.Socket

	// One of them is set, but for a file.
	Listener   *Listener
	PacketConn *PacketConn

	gate   *gate
	origin *Origin       // nil: this process has bound the socket
	gone   chan struct{} // closed when its user has closed it
	once   sync.Once     // closes gone

	forget func() error           // what else is to be done when its user closes it
	stored atomic.Pointer[string] // the name under which systemd's store has the socket

	deferred atomic.Bool // its gate stays paused until Begin

	mu      sync.Mutex
	handle  Handle
	fd      int  // valid while refs > 0
	refs    int  // one for being open, one for each transfer under way
	dropped bool // closed by its user
}

// New makes a socket of h, of which it takes ownership. origin is nil if this
// process has bound it; otherwise net has forgotten lc's keep-alive, which the
// Listener applies to accepted connections.
func New(k Key, h Handle, lc *net.ListenConfig, origin *Origin) (*Socket, error) {
	s := &Socket{handle: h, refs: 1, origin: origin, gone: make(chan struct{})}
	s.SetStored("")
	if origin != nil {
		s.SetStored(origin.Stored)
	}
	addr, err := s.wrap(k, lc)
	if err == nil {
		err = s.describe(k, addr)
	}
	if err != nil {
		_ = h.Close() // of no use
		return nil, err
	}
	return s, nil
}

// wrap makes the Listener or PacketConn, and returns the address.
func (s *Socket) wrap(k Key, lc *net.ListenConfig) (net.Addr, error) {
	switch h := s.handle.(type) {
	case *os.File:
		return nil, nil
	case netListener:
		if u, ok := h.(*net.UnixListener); ok {
			u.SetUnlinkOnClose(false) // see Unlink
		}
		s.gate = gateOf(h)
		s.Listener = &Listener{addr: h.Addr(), gate: s.gate, closing: s.Release, accepting: make(chan struct{})}
		s.Listener.inner.Store(&h)
		s.Listener.queue.gate = s.gate
		if s.origin != nil && lc != nil {
			s.Listener.keepAlive = keepAliveOf(lc)
		}
		return h.Addr(), nil
	case netPacketConn:
		s.gate = gateOf(h)
		s.PacketConn = &PacketConn{gate: s.gate, closing: s.Release}
		s.PacketConn.inner.Store(&h)
		s.PacketConn.queue.gate = s.gate
		return h.LocalAddr(), nil
	}
	return nil, fmt.Errorf("%w: a socket of type %T", failure.Unsupported, s.handle)
}

// describe fills in the manifest's entry.
func (s *Socket) describe(k Key, addr net.Addr) error {
	fd, err := fdx.Number(s.handle)
	if err != nil {
		return err
	}
	s.fd = fd
	s.Entry = wire.Socket{Kind: k.Kind, Name: k.Name, Network: k.Network, Address: k.Address}
	info, err := fdx.Info(fd)
	switch {
	case err == nil:
		s.Entry.Domain = int32(info.Domain)
		s.Entry.SockType = int32(info.Type)
		s.Entry.Protocol = int32(info.Protocol)
		s.Entry.Listening = info.Listening || k.Kind == wire.KindListener // before it is passed on
		s.Entry.Sockname = info.Sockname
	case k.Kind != wire.KindFile:
		return err
	}
	if addr != nil {
		s.Entry.Bound = addr.String()
		s.Entry.PathDev, s.Entry.PathIno, _ = pathID(UnixPath(addr))
	}
	if o := s.origin; o != nil && o.Entry != nil {
		if o.Entry.Keeper == wire.KeeperUnit {
			s.Entry.Keeper = wire.KeeperUnit
		}
		s.Entry.PathDev, s.Entry.PathIno = o.Entry.PathDev, o.Entry.PathIno
	}
	return nil
}

// Handle returns the object that owns the descriptor. It stays the socket's.
func (s *Socket) Handle() Handle {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.handle
}

// Gone returns a channel that is closed when the user has closed the socket.
func (s *Socket) Gone() <-chan struct{} { return s.gone }

// Stored returns the name under which systemd's store has the socket, so that it
// outlives this process; empty if the store has not.
func (s *Socket) Stored() string { return *s.stored.Load() }

// SetStored sets the name that Stored returns.
func (s *Socket) SetStored(name string) { s.stored.Store(&name) }

// Hold keeps the descriptor, which it returns, open until Release. It reports
// false if the socket is closed.
func (s *Socket) Hold() (fd int, ok bool) {
	if s == nil {
		return 0, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		return 0, false
	}
	s.refs++
	return s.fd, true
}

// Release gives back one hold; the last one closes the descriptor.
func (s *Socket) Release() error {
	s.mu.Lock()
	s.refs--
	last, h := s.refs == 0, s.handle
	s.mu.Unlock()
	if !last {
		return nil
	}
	return h.Close()
}

// Defer keeps Accept waiting, whatever the other gates do, until [Table.Begin]: the
// socket does not listen yet. It is called before the socket is in a table.
func (s *Socket) Defer() { s.deferred.Store(true) }

// Open lets Accept and reads through.
func (s *Socket) Open() {
	if s != nil {
		s.gate.open()
	}
}

// Pause holds Accept and reads, and returns when none is inside any more.
func (s *Socket) Pause() {
	if s != nil {
		s.gate.pause()
	}
}

// Shut turns Accept and reads away for good, and closes nothing.
func (s *Socket) Shut() {
	if s != nil {
		s.gate.shut()
	}
}

// Drop shuts the socket and gives back the hold that it has for being open. It
// reports false if that, or Retire, was done before.
func (s *Socket) Drop() (bool, error) {
	if s == nil {
		return false, nil
	}
	dropped := s.drop()
	if s.gate != nil {
		s.gate.shut()
	}
	if !dropped {
		return false, nil
	}
	return true, s.Release()
}

// Retire closes the socket, whose program does not notice: Accept waits until the gate is
// shut.
func (s *Socket) Retire() error {
	if !s.drop() {
		return nil
	}
	if s.gate != nil {
		s.gate.pause()
	}
	return s.Release()
}

// drop marks the socket as closed; it reports false if it was before.
func (s *Socket) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.dropped
	s.dropped = true
	return !was
}

func (s *Socket) leave() { s.once.Do(func() { close(s.gone) }) }

// closed reports whether its user has closed it.
func (s *Socket) closed() bool {
	select {
	case <-s.gone:
		return true
	default:
		return false
	}
}
