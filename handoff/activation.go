package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"github.com/seed-11c92bf9/baton/handoff/internal/sdnotify"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// activation holds the sockets that systemd has bound and passed on
// (sd_listen_fds(3)), until somebody asks for them. Their paths are systemd's to
// remove.
type activation struct {
	mu   sync.Mutex
	held []activated
}

// activated is one of them: ln or pc.
type activated struct {
	name string // FileDescriptorName=
	addr net.Addr
	ln   net.Listener
	pc   net.PacketConn
}

// newActivation takes what systemd has passed on out of the environment, so that
// no other process takes it for its own.
func newActivation(cfg *config) (*activation, error) {
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
	return a, nil
}

// check says why a socket of systemd's can't be handed on in a mode.
func (s *activated) check(mode Mode) error {
	switch {
	case mode == Drain:
		return fmt.Errorf("%w: in mode drain each process binds sockets of its own: use Takeover, or no socket unit", ErrUnsupported)
	case mode == Inherit && unixPath(s.addr) != "":
		return fmt.Errorf("%w: in mode inherit tableflip removes the path %s in the end, which is systemd's: use Takeover", ErrUnsupported, s.addr)
	}
	return nil
}

// close closes what nobody has asked for. Nothing is lost: systemd has the
// sockets as well.
func (a *activation) close() {
	for _, s := range a.rest() {
		if s.ln != nil {
			_ = s.ln.Close() // a copy
		} else {
			_ = s.pc.Close() // likewise
		}
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

// dropRest closes what this program does not serve, and says so.
func (u *Upgrader) dropRest() {
	u.activation.mu.Lock()
	for _, s := range u.activation.held {
		u.log.Warn("nobody has asked for a socket of systemd's: connections will wait in it", "name", s.name, "network", s.addr.Network(), "address", s.addr.String())
	}
	u.activation.mu.Unlock()
	u.activation.close()
}

// claim returns the socket that goes by k's name, or else has its address.
func (a *activation) claim(k key) (activated, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	bound, known := resolve(k.network, k.address)
	for _, match := range []func(activated) bool{
		func(s activated) bool { return k.name != "" && s.name == k.name },
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
func (s activated) serves(k key) bool {
	if (s.ln != nil) != (k.kind == wire.KindListener) {
		return false
	}
	var ip net.IP
	switch addr := s.addr.(type) {
	case *net.TCPAddr:
		ip = addr.IP
	case *net.UDPAddr:
		ip = addr.IP
	default:
		return s.addr.Network() == k.network
	}
	base := s.addr.Network() // "tcp" or "udp"
	four := ip.To4() != nil
	return k.network == base || k.network == base+"4" && four || k.network == base+"6" && !four
}

// Any number but 0, which stands for a predecessor that has sent no manifest.
const (
	sockStream = 1
	sockDgram  = 2
)

// activatedEntry is what the manifest says of a socket that came from systemd: its path
// has no identity, so that nobody of ours removes it.
func (u *Upgrader) activatedEntry(k key, kind int32) *wire.Socket {
	return &wire.Socket{Kind: k.kind, Name: k.name, Network: k.network, Address: k.address, SockType: kind, Shard: u.table.nextShard(k)}
}

// errNoSocket says that a descriptor can't be served on.
var errNoSocket = errors.New("neither a listening socket nor one for datagrams")
