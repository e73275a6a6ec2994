package handoff

import (
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
)

// A socket is one descriptor that is handed on: a listener, a datagram socket
// or a file, with what the manifest says of it.
type socket struct {
	entry wire.Socket
	fd    int // borrowed from ln, pc or file, and valid while refs > 0

	ln   *Listener
	pc   *PacketConn
	file *os.File
	gate *gate // nil for a file

	forget func() error // nil, or tells the engine that its user has closed it
	// here says that this process bound the socket, so that its path is ours to
	// remove even if we never come to own the others. The table's lock guards it.
	here bool

	// late makes the kernel give the socket something: listen(2), or bind(2) of a
	// datagram socket. nil if it has been so from the start. It is called
	// once. unused closes what it needs where it is not called.
	// kept says that systemd's store has the socket, by the name stored, which the
	// store's turn guards.
	kept   atomic.Bool
	stored string

	late   func() error
	unused func()

	mu      sync.Mutex
	refs    int  // one for being open, one for each transfer under way
	dropped bool // closed by its user
}

func (s *socket) hold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.refs == 0 {
		return false
	}
	s.refs++
	return true
}

// release gives back one hold; the last one closes the descriptor.
func (s *socket) release() error {
	s.mu.Lock()
	s.refs--
	last := s.refs == 0
	s.mu.Unlock()
	if !last {
		return nil
	}
	if unused := s.takeLate(); unused != nil {
		unused()
	}
	switch {
	case s.ln != nil:
		return s.ln.inner.Close()
	case s.pc != nil:
		return s.pc.inner.Close()
	}
	return s.file.Close()
}

// join calls late, if it wasn't.
func (s *socket) join() error {
	s.mu.Lock()
	late := s.late
	s.late, s.unused = nil, nil
	s.mu.Unlock()
	if late == nil {
		return nil
	}
	return late()
}

// takeLate returns what to do instead of late, if that was not called.
func (s *socket) takeLate() func() {
	s.mu.Lock()
	defer s.mu.Unlock()
	unused := s.unused
	s.late, s.unused = nil, nil
	return unused
}

// joins reports whether the socket still has to join its group.
func (s *socket) joins() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.late != nil
}

// drop marks the socket as closed; it reports false if it was before.
func (s *socket) drop() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.dropped
	s.dropped = true
	return !was
}

// key identifies a socket to the program: what it asked for.
type key struct {
	kind    wire.SocketKind
	name    string
	network string
	address string
}

func keyOf(e *wire.Socket) key { return key{e.Kind, e.Name, e.Network, e.Address} }

func (k key) String() string {
	if k.name != "" {
		return fmt.Sprintf("%q", k.name)
	}
	return k.network + " " + k.address
}

// newListenerSocket wraps an open listener. It takes ownership of ln.
func newListenerSocket(k key, ln net.Listener, inherited bool, lc *net.ListenConfig) (*socket, error) {
	inner, ok := ln.(netListener)
	if !ok {
		_ = ln.Close() // of no use
		return nil, fmt.Errorf("%w: a listener of type %T", ErrUnsupported, ln)
	}
	if u, ok := ln.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // see unlink
	}
	s := &socket{refs: 1}
	if err := s.describe(k, inner, ln.Addr()); err != nil {
		_ = ln.Close()
		return nil, err
	}
	s.gate = newGate(gatePaused, inner.SetDeadline)
	s.ln = &Listener{inner: inner, gate: s.gate}
	s.ln.guests.gate = s.gate
	if inherited {
		s.ln.keepAlive = newKeepAlive(lc)
	}
	return s, nil
}

// newPacketSocket wraps an open datagram socket. It takes ownership of pc.
func newPacketSocket(k key, pc net.PacketConn) (*socket, error) {
	inner, ok := pc.(netPacketConn)
	if !ok {
		_ = pc.Close() // of no use
		return nil, fmt.Errorf("%w: a packet connection of type %T", ErrUnsupported, pc)
	}
	s := &socket{refs: 1}
	if err := s.describe(k, inner, pc.LocalAddr()); err != nil {
		_ = pc.Close()
		return nil, err
	}
	s.gate = newGate(gatePaused, inner.SetReadDeadline)
	s.pc = &PacketConn{inner: inner, gate: s.gate}
	s.pc.guests.gate = s.gate
	s.pc.udp, _ = pc.(*net.UDPConn)
	return s, nil
}

// newFileSocket wraps an open file. It takes ownership of f.
func newFileSocket(name string, f *os.File) (*socket, error) {
	s := &socket{refs: 1, file: f}
	if err := s.describe(key{kind: wire.KindFile, name: name}, f, nil); err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

// describe fills in the manifest's entry.
func (s *socket) describe(k key, c syscall.Conn, addr net.Addr) error {
	fd, err := fdx.Number(c)
	if err != nil {
		return err
	}
	s.fd = fd
	s.entry = wire.Socket{Kind: k.kind, Name: k.name, Network: k.network, Address: k.address}
	info, err := fdx.Info(fd)
	switch {
	case err == nil:
		s.entry.Domain = int32(info.Domain)
		s.entry.SockType = int32(info.Type)
		s.entry.Protocol = int32(info.Protocol)
		s.entry.Listening = info.Listening
		s.entry.Sockname = info.Sockname
	case k.kind != wire.KindFile:
		return err
	}
	if addr != nil {
		s.entry.Bound = addr.String()
		s.entry.PathDev, s.entry.PathIno, _ = pathID(unixPath(addr))
	}
	return nil
}
