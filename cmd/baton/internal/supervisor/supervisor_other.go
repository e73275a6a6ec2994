//go:build !linux

package supervisor

import (
	"errors"
	"fmt"
	"runtime"
)

// ExecArg is the first argument of a process that is to call [Exec].
const ExecArg = "__exec"

// Exec returns 2: no process is started with ExecArg here.
func Exec([]string) int { return 2 }

// A Supervisor can't be made on this system.
type Supervisor struct{}

// New returns an error that matches [ErrConfig] or [errors.ErrUnsupported].
func New(c *Config) (*Supervisor, error) {
	if err := c.check(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("baton run on %s: %w", runtime.GOOS, errors.ErrUnsupported)
}

// Run fails.
func (*Supervisor) Run() error { return errors.ErrUnsupported }
