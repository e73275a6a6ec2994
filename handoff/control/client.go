package control

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/internal/fdpass"
)

// Config says which server to ask.
type Config struct {
	// Name is the server's [handoff.Config] Name, for a server of the same user.
	Name string
	// Socket is the path of its control socket, instead. One of the two is
	// required; Socket wins.
	Socket string
}

// maxSunPath is the longest path that fits into a sockaddr_un, its final zero
// left out (unix(7)).
const maxSunPath = 107

// A Client asks one server.
type Client struct {
	socket string
}

// New returns a client for the server that c names. It does not talk to it yet.
func New(c *Config) (*Client, error) {
	if c == nil || c.Name == "" && c.Socket == "" {
		return nil, errors.New("control: neither a name nor a socket: say which server")
	}
	path := c.Socket
	if path == "" {
		path = handoff.ControlPath(c.Name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	if len(path) > maxSunPath {
		return nil, fmt.Errorf("control: socket %s: %d bytes, unix(7) allows %d: give a shorter path", path, len(path), maxSunPath)
	}
	return &Client{socket: path}, nil
}

// Socket returns the path of the control socket.
func (c *Client) Socket() string { return c.socket }

// dial connects to the server, and checks who it is.
func (c *Client) dial(ctx context.Context) (*fdpass.Conn, error) {
	if err := supported(); err != nil {
		return nil, err
	}
	// The kernel refuses a connection to any file in the same way.
	if fi, err := os.Stat(c.socket); err == nil && fi.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("%w at %s, but something else: check its name", ErrNoServer, c.socket)
	}
	nc, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	switch {
	case err == nil:
	case ctx.Err() != nil:
		return nil, fmt.Errorf("control: dial %s: %w", c.socket, context.Cause(ctx))
	case errors.Is(err, os.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return nil, fmt.Errorf("%w at %s: start the server, or check its name", ErrNoServer, c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: %s: start the server again", ErrStale, c.socket)
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("%w: %s is not open to uid %d: be the server's user, or root", handoff.ErrPeerRefused, c.socket, os.Geteuid())
	default:
		return nil, fmt.Errorf("control: %w", err)
	}
	uc, ok := nc.(*net.UnixConn)
	if !ok {
		_ = nc.Close() // can't be
		return nil, fmt.Errorf("control: dial %s: a %T", c.socket, nc)
	}
	conn := fdpass.New(uc)
	cred, err := conn.Peer()
	// Whoever could make a socket there could tell us anything. Root asks
	// servers of all users.
	if err == nil && os.Geteuid() != 0 && cred.UID != 0 && cred.UID != os.Geteuid() {
		err = fmt.Errorf("%w: the server at %s has uid %d, we have %d", handoff.ErrPeerRefused, c.socket, cred.UID, os.Geteuid())
	}
	if err != nil {
		_ = conn.Close() // nothing was said
		return nil, err
	}
	return conn, nil
}
