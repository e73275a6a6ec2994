package systemd

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// passed is a socket that systemd has passed on and that the program has not asked
// for yet.
type passed struct {
	name   string // FileDescriptorName=, or the one in the store
	kind   wire.SocketKind
	addr   net.Addr
	handle sockets.Handle
	entry  *wire.Socket // what an earlier process has stored; nil for a socket unit's
}

// take removes and returns the first socket that matches, or nil.
func (m *Manager) take(match func(*passed) bool) *passed {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.passed, match)
	if i < 0 {
		return nil
	}
	s := m.passed[i]
	m.passed = slices.Delete(m.passed, i, i+1)
	return s
}

func every(*passed) bool { return true }

// closePassed closes the sockets. Nothing is lost: systemd has them, too.
func (m *Manager) closePassed() {
	for s := m.take(every); s != nil; s = m.take(every) {
		_ = s.handle.Close()
	}
}

// open takes the sockets of the environment, and takes the variables out of it, so
// that no other process uses them.
func (m *Manager) open() error {
	all, err := sdnotify.Listen(os.Getenv, os.Getpid(), sdnotify.PIDFDID(os.Getpid()))
	if err != nil {
		return err
	}
	if all == nil {
		return nil
	}
	for _, name := range []string{sdnotify.EnvListenPID, sdnotify.EnvListenPIDFDID, sdnotify.EnvListenFDs, sdnotify.EnvListenNames} {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	for _, in := range all {
		stored := strings.HasPrefix(in.Name, namePrefix) || in.Name == probeName
		s, err := m.openPassed(in, stored)
		switch {
		case err == nil:
			m.passed = append(m.passed, s)
		case stored: // the first update removes it
			m.cfg.Logger.Warn("a socket of systemd's store can't be used", "name", in.Name, "error", err)
		default:
			return fmt.Errorf("socket %q, descriptor %d: %w", in.Name, in.FD, err)
		}
		if stored {
			m.store.names[in.Name] = true
		}
	}
	// systemd passes them on in any order.
	slices.SortStableFunc(m.passed, func(a, b *passed) int { return cmp.Compare(a.shard(), b.shard()) })
	return nil
}

// errNoSocket says that a descriptor can't be served.
var errNoSocket = errors.New("neither a listening socket nor one for datagrams")

// openPassed makes a listener or a packet connection of a descriptor, which it takes.
func (m *Manager) openPassed(in sdnotify.Inherited, stored bool) (*passed, error) {
	kind, err := kindOf(in.FD)
	if err != nil {
		return nil, errors.Join(err, fdx.Close(in.FD))
	}
	s := &passed{name: in.Name, kind: kind}
	if s.handle, err = sockets.Open(sockets.Key{Kind: kind, Name: in.Name}, in.FD); err != nil {
		return nil, err
	}
	switch h := s.handle.(type) {
	case net.Listener:
		s.addr = h.Addr()
	case net.PacketConn:
		s.addr = h.LocalAddr()
	}
	if stored {
		err = s.restore()
	} else {
		err = m.check(s)
	}
	if err != nil {
		_ = s.handle.Close()
		return nil, err
	}
	return s, nil
}

// restore reads what the name in the store says. It is an error if the socket is
// another one.
func (s *passed) restore() (err error) {
	if s.entry, err = parseName(s.name); err != nil {
		return err
	}
	s.entry.Bound = s.addr.String()
	if !s.serves(sockets.KeyOf(s.entry)) {
		return fmt.Errorf("it is %s %s", s.addr.Network(), s.addr)
	}
	return nil
}

// check says why a socket unit's socket can't be handed on.
func (m *Manager) check(s *passed) error {
	switch {
	case m.cfg.Drain:
		return fmt.Errorf("%w: in mode drain each process binds sockets of its own: use Takeover, or no socket unit", failure.Unsupported)
	case m.cfg.Inherit && sockets.UnixPath(s.addr) != "":
		return fmt.Errorf("%w: in mode inherit tableflip removes the path %s in the end, which is systemd's: use Takeover", failure.Unsupported, s.addr)
	}
	return nil
}

// shard returns the position among the sockets with the same key.
func (s *passed) shard() uint32 {
	if s.entry == nil {
		return 0
	}
	return s.entry.Shard
}

// serves reports whether the socket is of k's kind and network.
func (s *passed) serves(k sockets.Key) bool {
	var ip net.IP
	switch addr := s.addr.(type) {
	case *net.TCPAddr:
		ip = addr.IP
	case *net.UDPAddr:
		ip = addr.IP
	default:
		return s.kind == k.Kind && s.addr.Network() == k.Network
	}
	base := s.addr.Network() // "tcp" or "udp"
	four := ip.To4() != nil
	return s.kind == k.Kind && (k.Network == base || k.Network == base+"4" && four || k.Network == base+"6" && !four)
}

// collides reports whether the socket may keep another one from having the address
// bound: it has the same port, or the same path.
func (s *passed) collides(network, bound string) bool {
	if s.addr.Network()[:3] != network[:3] {
		return false
	}
	if strings.HasPrefix(network, "unix") {
		return s.addr.String() == bound
	}
	_, p, err := net.SplitHostPort(s.addr.String())
	_, q, qerr := net.SplitHostPort(bound)
	return err == nil && qerr == nil && p == q
}

// Match takes the socket that answers k: the one that the program asked for with k
// before a restart, or a socket unit's of k's name, or else one that is bound to k's
// address. It returns nil where there is none. The caller owns the handle.
func (m *Manager) Match(k sockets.Key) (sockets.Handle, *sockets.Origin) {
	bound, known := sockets.Resolve(k.Network, k.Address)
	for _, match := range []func(*passed) bool{
		func(s *passed) bool { return s.entry != nil && sockets.KeyOf(s.entry) == k },
		func(s *passed) bool { return k.Name != "" && s.name == k.Name },
		func(s *passed) bool { return known && s.addr.String() == bound },
	} {
		s := m.take(func(s *passed) bool { return s.serves(k) && match(s) })
		switch {
		case s == nil:
		case s.entry == nil:
			return s.handle, &sockets.Origin{Unit: true}
		default:
			return s.handle, &sockets.Origin{Entry: s.entry, Stored: s.name}
		}
	}
	return nil, nil
}

// closeUnused closes what the program has not asked for.
func (m *Manager) closeUnused() {
	for s := m.take(every); s != nil; s = m.take(every) {
		if s.entry == nil {
			m.cfg.Logger.Warn("the program has not asked for a socket of a socket unit: connections will wait in it", "name", s.name, "network", s.addr.Network(), "address", s.addr.String())
			_ = s.handle.Close()
			continue
		}
		m.cfg.Logger.Warn("the program has not asked for a socket of systemd's store: it is closed", "socket", sockets.KeyOf(s.entry).String(), "address", s.addr.String())
		m.discard(s) // the next update removes it
	}
}

// discard closes a stored socket for good.
func (m *Manager) discard(s *passed) {
	_ = s.handle.Close()
	if m.cfg.Table.Uses(s.entry) {
		return // a predecessor has passed the same one on
	}
	if err := sockets.Unlink(s.entry); err != nil {
		m.cfg.Logger.Warn("a socket of systemd's store", "error", err)
	}
}
