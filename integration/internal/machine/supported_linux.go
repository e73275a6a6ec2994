package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// Supported says why no machine can be booted here, and what to do about it.
func Supported() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("it takes root, the user id is %d: try sudo", uid)
	}
	if program("") == "" {
		return errors.New("systemd is not installed: apt-get install systemd")
	}
	for _, name := range []string{"nsenter", "setpriv"} {
		if _, err := exec.LookPath(name); err != nil {
			return fmt.Errorf("%w: apt-get install util-linux", err)
		}
	}
	_, err := cgroup2()
	return err
}
