package handoff

import (
	"fmt"
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/handoff/internal/sockets"
	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// ControlPath returns the path of the control socket of the service called
// name, for a process of this user: where Config.Name puts it.
func ControlPath(name string) string { return operate.Path(name) }

// controlPath returns the path of this process's control socket, "" for an
// abstract one.
func (cfg *config) controlPath() (string, error) {
	return operate.Locate(cfg.Name, cfg.ControlSocket)
}

// controlSocket makes a socket of ln, of which it takes ownership.
func controlSocket(ln net.Listener) (*sockets.Socket, error) {
	h, err := sockets.HandleOf(ln, nil)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	s, err := sockets.New(sockets.Key{Kind: wire.KindControl, Network: "unix", Address: ln.Addr().String()}, h, nil, nil)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return s, nil
}
