package operate

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// maxSunPath is the longest path that fits into a sockaddr_un, without its final
// zero (unix(7)).
const maxSunPath = 107

// Path returns the path of the control socket of the service called name, for a
// process of this user.
func Path(name string) string {
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

// Locate returns the absolute path of a control socket: path, or where that is
// empty the one that belongs to name. It returns "" where both are empty.
func Locate(name, path string) (string, error) {
	shorter := "choose a shorter ControlSocket"
	if path == "" {
		if name == "" {
			return "", nil
		}
		path, shorter = Path(name), "choose a shorter Name, or a ControlSocket"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", fmt.Errorf("control socket: %w", err)
	}
	if len(path) > maxSunPath {
		return "", fmt.Errorf("control socket %s: the path has %d bytes, and unix(7) allows %d: %s", path, len(path), maxSunPath, shorter)
	}
	return path, nil
}
