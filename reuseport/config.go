package reuseport

import (
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
)

// Config says how sockets are made. A nil *Config means all defaults. Functions
// that take one copy it and never write to it.
type Config struct {
	// Members is the number of members that [ListenGroup] and
	// [ListenPacketGroup] start with. Zero means one per CPU that this process
	// may use (runtime.GOMAXPROCS); a negative number is an error.
	Members int

	// Control, if not nil, is called for each new socket, after SO_REUSEPORT
	// was set and before the address is bound, by the goroutine that asked for
	// the socket. It is the Control of [net.ListenConfig].
	Control func(network, address string, c syscall.RawConn) error

	// Backlog is the limit of each listener's accept queue, as in listen(2),
	// which the kernel cuts to net.core.somaxconn. Zero means that maximum; a
	// negative number is an error.
	Backlog int

	// KeepAlive is as in [net.ListenConfig]: the keep-alive period of accepted
	// connections; zero means Go's default, negative none. KeepAliveConfig
	// replaces it if its Enable is true.
	KeepAlive       time.Duration
	KeepAliveConfig net.KeepAliveConfig
}

// orDefault returns a copy of c with every default filled in.
func (c *Config) orDefault() (Config, error) {
	var cfg Config
	if c != nil {
		cfg = *c
	}
	if cfg.Members < 0 {
		return Config{}, fmt.Errorf("reuseport: Config.Members is %d: give 0 for one per CPU, or the number wanted", cfg.Members)
	}
	if cfg.Members == 0 {
		cfg.Members = runtime.GOMAXPROCS(0)
	}
	if cfg.Backlog < 0 {
		return Config{}, fmt.Errorf("reuseport: Config.Backlog is %d: give 0 for the system's maximum, or the limit wanted", cfg.Backlog)
	}
	return cfg, nil
}

// listenConfig returns a net.ListenConfig that makes reuseport sockets.
//
// MPTCP is off. From Go 1.24 on, net.Listen makes MPTCP listeners where the
// kernel has them, and on those SO_ATTACH_REUSEPORT_CBPF and socket arrays fail
// with EOPNOTSUPP (seen on Linux 6.1 to 7.2), so a group of them can be neither
// steered nor drained.
func (c *Config) listenConfig() *net.ListenConfig {
	lc := &net.ListenConfig{
		Control:         Control(c.Control),
		KeepAlive:       c.KeepAlive,
		KeepAliveConfig: c.KeepAliveConfig,
	}
	lc.SetMultipathTCP(false)
	return lc
}
