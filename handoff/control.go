package handoff

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"

	"github.com/seed-11c92bf9/baton/handoff/internal/wire"
)

// maxSunPath is the longest path that fits into a sockaddr_un, its final zero
// left out (unix(7)).
const maxSunPath = 107

// ControlPath returns the path of the control socket of the service that is
// called name, for a process of this user: what Config.Name leads to.
func ControlPath(name string) string {
	uid := os.Geteuid()
	base := "/run/baton"
	if uid != 0 {
		if dir := os.Getenv("XDG_RUNTIME_DIR"); dir != "" {
			base = filepath.Join(dir, "baton")
		} else {
			base = filepath.Join(os.TempDir(), "baton-"+strconv.Itoa(uid))
		}
	}
	return filepath.Join(base, name, "control.sock")
}

// controlPath returns where this process's control socket is, "" for an
// unnamed one.
func (cfg *config) controlPath() (string, error) {
	path := cfg.ControlSocket
	if path == "" {
		if cfg.Name == "" {
			return "", nil
		}
		path = ControlPath(cfg.Name)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("control socket: %w", err)
	}
	if len(path) > maxSunPath {
		return "", fmt.Errorf("control socket %s: %d bytes, unix(7) allows %d: choose a shorter ControlSocket", path, len(path), maxSunPath)
	}
	return path, nil
}

// makeSocketDir makes the folder of a control socket, or checks it: whoever
// can write into it could put a socket of his own there.
func makeSocketDir(dir string) error {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	fi, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if !fi.IsDir() {
		return fmt.Errorf("%s is no folder", dir)
	}
	if perm := fi.Mode().Perm(); perm&0o077 != 0 {
		return fmt.Errorf("folder %s has mode %#o: others could reach the control socket: chmod 700 it, or choose a ControlSocket in a folder of its own", dir, perm)
	}
	// Root could put anything there in any case.
	if uid, ok := ownerOf(fi); ok && uid != os.Geteuid() && uid != 0 {
		return fmt.Errorf("folder %s belongs to uid %d, we have %d: run both as one user, or choose another ControlSocket: %w", dir, uid, os.Geteuid(), os.ErrPermission)
	}
	return nil
}

// controlSocket wraps the listener of a control socket. It takes ownership of ln.
func controlSocket(ln net.Listener) (*socket, error) {
	s, err := newListenerSocket(key{kind: wire.KindControl, network: "unix", address: ln.Addr().String()}, ln, false, &net.ListenConfig{})
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return s, nil
}
