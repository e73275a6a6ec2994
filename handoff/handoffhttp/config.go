package handoffhttp

import (
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
)

// DefaultSpread is the default of [Config.Spread].
const DefaultSpread = time.Second

// Config says how a Server lingers. The zero value of each field gives its
// default. New copies what it needs.
type Config struct {
	// Goodbye is called once for each connection that a handler has hijacked: when the
	// linger begins, or when the connection is hijacked during the linger. It can end
	// the connection by the rules of its protocol, or pass it on by
	// [handoff.Upgrader.SendConn]. For that no goroutine may use the connection: end a
	// handler's Read by a read deadline in the past, and add the bytes that it has read
	// to the state. conn is what Hijack returned. Goodbye is called in a goroutine of
	// its own, and must return when ctx ends, at the linger limit. If it is nil,
	// nothing is called; a handler can also watch [Lingering].
	Goodbye func(ctx context.Context, conn net.Conn)

	// Spread is the time over which the connections that are still idle at the
	// linger limit are closed, so that their clients don't all come back at
	// once. Zero means DefaultSpread, negative none.
	Spread time.Duration

	// Stay keeps connections from moving: each ends after a response with
	// "Connection: close", in the predecessor.
	Stay bool

	// OwnTickets has ServeTLS leave session ticket keys as they are: for a
	// program that sets them itself.
	OwnTickets bool

	// Logger gets a line for what goes wrong, and for the end of a linger. nil
	// means no log; [handoff.SlogLogger] makes one of a *slog.Logger.
	Logger hclog.Logger
}

// config is a Config with its defaults.
type config struct {
	goodbye    func(context.Context, net.Conn)
	spread     time.Duration
	stay       bool
	ownTickets bool
	logger     hclog.Logger
}

func newConfig(c *Config) config {
	if c == nil {
		c = &Config{}
	}
	k := config{goodbye: c.Goodbye, spread: c.Spread, stay: c.Stay, ownTickets: c.OwnTickets, logger: c.Logger}
	if k.spread == 0 {
		k.spread = DefaultSpread
	}
	if k.logger == nil {
		k.logger = hclog.NewNullLogger()
	}
	return k
}
