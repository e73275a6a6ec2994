package handoff

import (
	"fmt"
	"net"

	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
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

// controlSocket wraps the listener of a control socket. It takes ownership of ln.
func controlSocket(ln net.Listener) (*socket, error) {
	s, err := newListenerSocket(key{kind: wire.KindControl, network: "unix", address: ln.Addr().String()}, ln, false, &net.ListenConfig{})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return s, nil
}
