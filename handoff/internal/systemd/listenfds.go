package systemd

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/seed-11c92bf9/baton/handoff/internal/failure"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/fdx"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// ListenVariables names the variables that describe the sockets to the process that
// systemd has started.
func ListenVariables() []string {
	return []string{sdnotify.EnvListenPID, sdnotify.EnvListenPIDFDID, sdnotify.EnvListenFDs, sdnotify.EnvListenNames}
}

// listenFDs takes the sockets that systemd has passed on, and takes the variables out
// of the environment, so that no other process uses them.
func (m *Manager) listenFDs() error {
	all, err := sdnotify.Listen(os.Getenv, os.Getpid(), sdnotify.PIDFDID(os.Getpid()))
	if err != nil {
		return err
	}
	if all == nil {
		return nil
	}
	for _, name := range ListenVariables() {
		if err := os.Unsetenv(name); err != nil {
			return err
		}
	}
	for _, in := range all {
		stored := strings.HasPrefix(in.Name, namePrefix) || in.Name == probeName
		a, err := m.open(in, stored)
		switch {
		case err == nil:
			m.passed = append(m.passed, a)
		case stored: // the first update removes it
			m.cfg.Logger.Warn("can't use a socket from systemd's descriptor store", "name", in.Name, "error", err)
		default:
			return fmt.Errorf("socket %q, descriptor %d: %w", in.Name, in.FD, err)
		}
		if stored {
			m.store.names[in.Name] = true
		}
	}
	// systemd passes them on in any order.
	slices.SortStableFunc(m.passed, func(a, b sockets.Arrived) int { return cmp.Compare(a.Entry.Shard, b.Entry.Shard) })
	return nil
}

// opened is a socket of systemd's, open already.
type opened struct{ sockets.Handle }

func (o opened) Open(*wire.Socket) (sockets.Handle, error) { return o.Handle, nil }

func (o opened) Borrow(*wire.Socket) (int, error) { return fdx.Number(o.Handle) }

// errNoSocket says that a descriptor can't be served.
var errNoSocket = errors.New("neither a listening socket nor one for datagrams")

// open makes a listener or a packet connection of a descriptor, which it takes. The
// entry of a stored one is what the name says; the path of another one has no
// identity, so that this service does not remove it.
func (m *Manager) open(in sdnotify.Inherited, stored bool) (a sockets.Arrived, err error) {
	a.Entry = wire.Socket{Name: in.Name, Keeper: wire.KeeperUnit}
	if a.Entry.Kind, err = kindOf(in.FD); err != nil {
		return a, errors.Join(err, fdx.Close(in.FD))
	}
	h, err := sockets.Open(sockets.KeyOf(&a.Entry), in.FD)
	if err != nil {
		return a, err
	}
	a.Source = opened{h}
	var addr net.Addr
	switch h := h.(type) {
	case net.Listener:
		addr = h.Addr()
	case net.PacketConn:
		addr = h.LocalAddr()
	}
	a.Entry.Network, a.Entry.Bound = addr.Network(), addr.String()
	switch {
	case stored:
		var e *wire.Socket
		if e, err = parseName(in.Name); err != nil {
			break
		}
		if !serves(&a.Entry, sockets.KeyOf(e)) {
			err = fmt.Errorf("it is %s %s", addr.Network(), addr)
		}
		e.Bound = a.Entry.Bound
		a.Entry = *e
	case m.cfg.Drain:
		err = fmt.Errorf("%w: in mode drain each process binds sockets of its own: use mode Takeover, or remove the socket unit", failure.Unsupported)
	case m.cfg.Inherit && sockets.UnixPath(addr) != "":
		err = fmt.Errorf("%w: in mode inherit tableflip removes the path %s at its end, but systemd owns it: use mode Takeover", failure.Unsupported, addr)
	}
	if err != nil {
		_ = h.Close()
	}
	return a, err
}

// serves reports whether a socket is of k's kind and network.
func serves(e *wire.Socket, k sockets.Key) bool {
	if e.Kind != k.Kind || !sockets.Inet(e) {
		return e.Kind == k.Kind && e.Network == k.Network
	}
	bound, err := netip.ParseAddrPort(e.Bound)
	base, four := e.Network[:3], bound.Addr().Unmap().Is4() // base is "tcp" or "udp"
	return err == nil && (k.Network == base || k.Network == base+"4" && four || k.Network == base+"6" && !four)
}

// collides reports whether a socket may keep another one from having the address
// bound: it has the same port, or the same path.
func collides(e *wire.Socket, network, bound string) bool {
	if e.Network[:3] != network[:3] {
		return false
	}
	if !sockets.Inet(e) {
		return e.Bound == bound
	}
	_, p, err := net.SplitHostPort(e.Bound)
	_, q, qerr := net.SplitHostPort(bound)
	return err == nil && qerr == nil && p == q
}

// take removes and returns the first socket that systemd has passed on, that the
// program has not asked for, and that matches.
func (m *Manager) take(match func(*wire.Socket) bool) (a sockets.Arrived, ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.passed, func(a sockets.Arrived) bool { return match(&a.Entry) })
	if i < 0 {
		return a, false
	}
	a = m.passed[i]
	m.passed = slices.Delete(m.passed, i, i+1)
	return a, true
}

func every(*wire.Socket) bool { return true }

func stored(e *wire.Socket) bool { return e.Keeper == wire.KeeperStore }

// Match takes the socket that answers k: the one that the program asked for with k
// before a restart, or a socket unit's of k's name, or else one that is bound to k's
// address.
func (m *Manager) Match(k sockets.Key) (a sockets.Arrived, ok bool) {
	at := sockets.PlaceOf(k.Network, k.Address)
	for _, match := range []func(*wire.Socket) bool{
		func(e *wire.Socket) bool { return stored(e) && sockets.KeyOf(e) == k },
		func(e *wire.Socket) bool { return !stored(e) && k.Name != "" && e.Name == k.Name },
		func(e *wire.Socket) bool { return at.Has(e) || at.Bound != "" && at.Bound == e.Bound },
	} {
		if a, ok = m.take(func(e *wire.Socket) bool { return serves(e, k) && match(e) }); ok {
			return a, true
		}
	}
	return a, false
}

// closePassed closes what is left. Nothing is lost: systemd has the sockets, too.
func (m *Manager) closePassed() {
	for a, ok := m.take(every); ok; a, ok = m.take(every) {
		_ = a.Source.Close()
	}
}

// closeUnused closes what the program has not asked for.
func (m *Manager) closeUnused() {
	for a, ok := m.take(every); ok; a, ok = m.take(every) {
		if stored(&a.Entry) {
			m.cfg.Logger.Warn("closed a socket from systemd's descriptor store: the program has not opened it", "socket", sockets.KeyOf(&a.Entry).String(), "address", a.Entry.Bound)
			m.discard(a) // the next update removes it
			continue
		}
		m.cfg.Logger.Warn("the program has not asked for a socket of a socket unit: connections will wait in it", "name", a.Entry.Name, "network", a.Entry.Network, "address", a.Entry.Bound)
		_ = a.Source.Close()
	}
}

// discard closes a stored socket for good.
func (m *Manager) discard(a sockets.Arrived) {
	_ = a.Source.Close()
	if m.cfg.Table.Uses(&a.Entry) {
		return // a predecessor has passed the same one on
	}
	if err := sockets.Unlink(&a.Entry); err != nil {
		m.cfg.Logger.Warn("a socket of systemd's store", "error", err)
	}
}
