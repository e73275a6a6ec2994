package handoff

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
	"github.com/seed-11c92bf9/baton/internal/sdnotify"
)

// activation holds the sockets that systemd has bound and passed on
// (sd_listen_fds(3)), until somebody asks for them. Their paths are systemd's to
// remove.
type activation struct {
	mu   sync.Mutex
	held []activated
}

// activated is one of them.
type activated struct {
	name   string // FileDescriptorName=, or the one in the store
	addr   net.Addr
	kind   wire.SocketKind
	handle sockets.Handle
	entry  *wire.Socket // what an earlier process has put into the store; nil for another's
}

// newActivation takes what systemd has passed on out of the environment, so that
// no other process takes it for its own.
func newActivation(cfg *config, st *store) (*activation, error) {
	a := &activation{}
	if cfg.NoSystemd {
		return a, nil
	}
	all, err := sdnotify.Listen(os.Getenv, os.Getpid(), sdnotify.PIDFDID(os.Getpid()))
	if err != nil {
		return nil, fmt.Errorf("handoff: sockets of systemd: %w", err)
	}
	if all == nil {
		return a, nil
	}
	for _, name := range []string{sdnotify.EnvListenPID, sdnotify.EnvListenPIDFDID, sdnotify.EnvListenFDs, sdnotify.EnvListenNames} {
		if err := os.Unsetenv(name); err != nil {
			return nil, fmt.Errorf("handoff: sockets of systemd: %w", err)
		}
	}
	for _, in := range all {
		if strings.HasPrefix(in.Name, storePrefix) || in.Name == probeName {
			st.names[in.Name] = true
			a.restore(in, cfg)
			continue
		}
		s, err := activate(in)
		if err == nil {
			a.held = append(a.held, s)
			err = s.check(cfg.Mode)
		}
		if err != nil {
			a.close()
			return nil, fmt.Errorf("handoff: socket %q of systemd, descriptor %d: %w", in.Name, in.FD, err)
		}
	}
	if err := a.leaveGroups(cfg, st); err != nil {
		a.close()
		return nil, fmt.Errorf("handoff: systemd's store: %w", err)
	}
	slices.SortStableFunc(a.held, func(s, o activated) int { return cmp.Compare(s.shard(), o.shard()) })
	return a, nil
}

// restore takes a socket out of the store's part. One that is not what it should
// be is left: the store loses it when this process is ready.
func (a *activation) restore(in sdnotify.Inherited, cfg *config) {
	s, err := activate(in)
	if err == nil {
		s.entry, err = parseStoreName(in.Name)
		if err == nil && !s.serves(sockets.KeyOf(s.entry)) {
			err = fmt.Errorf("it is %s %s", s.addr.Network(), s.addr)
		}
		if err != nil {
			s.close()
		}
	}
	if err != nil {
		cfg.Logger.Warn("a socket of systemd's store can't be used", "name", in.Name, "error", err)
		return
	}
	a.held = append(a.held, s)
}

// leaveGroups takes TCP and UDP sockets out of the store in mode Drain: this process
// makes its own, on the same addresses.
func (a *activation) leaveGroups(cfg *config, st *store) error {
	if cfg.Mode != Drain {
		return nil
	}
	var err error
	a.held = slices.DeleteFunc(a.held, func(s activated) bool {
		if s.entry == nil || !sockets.Inet(s.entry) {
			return false
		}
		cfg.Logger.Warn("a socket of systemd's store is closed in mode drain: what waits in it is lost", "socket", sockets.KeyOf(s.entry).String())
		s.close()
		err = errors.Join(err, st.remove(s.name))
		return true
	})
	if err != nil {
		return err
	}
	_, err = st.settle(context.Background())
	return err
}

// shard orders those that were one key's, as systemd passes them on in any order.
func (s *activated) shard() uint32 {
	if s.entry == nil {
		return 0
	}
	return s.entry.Shard
}

// close closes our copy.
func (s *activated) close() {
	_ = s.handle.Close() // systemd has it, or it is of no use
}

// check says why a socket of systemd's can't be handed on in a mode.
func (s *activated) check(mode Mode) error {
	switch {
	case mode == Drain:
		return fmt.Errorf("%w: in mode drain each process binds sockets of its own: use Takeover, or no socket unit", ErrUnsupported)
	case mode == Inherit && sockets.UnixPath(s.addr) != "":
		return fmt.Errorf("%w: in mode inherit tableflip removes the path %s in the end, which is systemd's: use Takeover", ErrUnsupported, s.addr)
	}
	return nil
}

// close closes what nobody has asked for. Nothing is lost: systemd has the
// sockets as well.
func (a *activation) close() {
	for _, s := range a.rest() {
		s.close()
	}
}

// rest takes what nobody has asked for.
func (a *activation) rest() []activated {
	a.mu.Lock()
	defer a.mu.Unlock()
	rest := a.held
	a.held = nil
	return rest
}

// inTheWay takes what nobody has asked for, is in the store, and has the port or the
// path that k needs.
func (a *activation) inTheWay(k sockets.Key) []activated {
	a.mu.Lock()
	defer a.mu.Unlock()
	var found []activated
	bound, known := sockets.Resolve(k.Network, k.Address)
	a.held = slices.DeleteFunc(a.held, func(s activated) bool {
		if s.entry == nil || !known || s.addr.Network()[:3] != k.Network[:3] || !collide(k.Network, s.addr.String(), bound) {
			return false
		}
		found = append(found, s)
		return true
	})
	return found
}

// dropRest closes what this program does not serve, and says so.
func (u *Upgrader) dropRest() {
	for _, s := range u.activation.rest() {
		if s.entry != nil {
			u.log.Warn("nobody has asked for a socket of systemd's store: it is closed", "socket", sockets.KeyOf(s.entry).String(), "address", s.addr.String())
			u.giveUp(s)
			continue
		}
		u.log.Warn("nobody has asked for a socket of systemd's: connections will wait in it", "name", s.name, "network", s.addr.Network(), "address", s.addr.String())
		s.close()
	}
}

// claim returns the socket that was k's before this process, or goes by k's name, or
// else has its address.
func (a *activation) claim(k sockets.Key) (activated, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bound, known := sockets.Resolve(k.Network, k.Address)
	for _, match := range []func(activated) bool{
		func(s activated) bool { return s.entry != nil && sockets.KeyOf(s.entry) == k },
		func(s activated) bool { return k.Name != "" && s.name == k.Name },
		func(s activated) bool { return known && s.addr.String() == bound },
	} {
		for i, s := range a.held {
			if s.serves(k) && match(s) {
				a.held = append(a.held[:i], a.held[i+1:]...)
				return s, true
			}
		}
	}
	return activated{}, false
}

// serves reports whether the socket is of k's kind and network.
func (s activated) serves(k sockets.Key) bool {
	if s.kind != k.Kind {
		return false
	}
	var ip net.IP
	switch addr := s.addr.(type) {
	case *net.TCPAddr:
		ip = addr.IP
	case *net.UDPAddr:
		ip = addr.IP
	default:
		return s.addr.Network() == k.Network
	}
	base := s.addr.Network() // "tcp" or "udp"
	four := ip.To4() != nil
	return k.Network == base || k.Network == base+"4" && four || k.Network == base+"6" && !four
}

// errNoSocket says that a descriptor can't be served on.
var errNoSocket = errors.New("neither a listening socket nor one for datagrams")
