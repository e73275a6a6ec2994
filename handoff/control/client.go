package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
	"github.com/seed-11c92bf9/baton/handoff/internal/operate"
	"github.com/seed-11c92bf9/baton/internal/trust"
)

// Config says which server to ask.
type Config struct {
	// Name is the server's [handoff.Config] Name, for a server of the same user. A
	// server that has another one refuses each request.
	Name string
	// Socket is the path of its control socket, where that does not follow from Name.
	// One of the two is required.
	Socket string
}

// A Client asks one server.
type Client struct {
	name   string // empty: any
	socket string
}

// Path returns the path of the control socket of the server with that name that this user
// runs, if its [handoff.Config] has no ControlSocket.
func Path(name string) string { return operate.Path(name) }

// New returns a client for the server that c names. It does not connect yet.
func New(c *Config) (*Client, error) {
	if c == nil || c.Name == "" && c.Socket == "" {
		return nil, errors.New("control: Config has neither Name nor Socket: set one of them")
	}
	path, err := operate.Locate(c.Name, c.Socket)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return &Client{name: c.Name, socket: path}, nil
}

// Socket returns the path of the control socket.
func (c *Client) Socket() string { return c.socket }

// dial connects to the server, and checks its user.
func (c *Client) dial() (*fdpass.Conn, error) {
	// connect(2) has the same error for a file and for a socket without a process.
	if fi, err := os.Stat(c.socket); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%w at %s, but something else: check its name", ErrNoServer, c.socket)
	}
	uc, err := operate.Dial(c.socket)
	switch {
	case err == nil:
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		elsewhere := ""
		if os.Geteuid() == 0 && c.socket == operate.Path(filepath.Base(filepath.Dir(c.socket))) {
			elsewhere = "; if it is another user's, give the path of its control socket (baton --socket PATH)"
		}
		return nil, fmt.Errorf("%w at %s: start the server, or check its name%s", ErrNoServer, c.socket, elsewhere)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %s: start the server again", ErrStale, c.socket)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: %s does not admit uid %d: run this as the server's user, or as root", handoff.ErrPeerRefused, c.socket, os.Geteuid())
	default:
		return nil, fmt.Errorf("control: %w", err)
	}
	conn := fdpass.New(uc)
	cred, err := conn.Peer()
	// Root may ask servers of all users. Another user could have put its own socket
	// there, and answer anything.
	owner := 0
	switch {
	case err != nil:
	case os.Geteuid() == 0:
		owner = cred.UID
	case !trust.User(cred.UID):
		err = fmt.Errorf("%w: the server at %s has uid %d, this process has %d", handoff.ErrPeerRefused, c.socket, cred.UID, os.Geteuid())
	}
	if err == nil {
		if err = operate.CheckFolder(c.socket, owner); err != nil {
			err = fmt.Errorf("%w: control socket: %w", handoff.ErrPeerRefused, err)
		}
	}
	if err != nil {
		_ = conn.Close() // nothing was sent
		return nil, err
	}
	return conn, nil
}
