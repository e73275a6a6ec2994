package handoffhttp

import (
	"cmp"
	"context"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/seed-11c92bf9/baton/handoff"
)

// DefaultSpread is the default of [Config.Spread].
const DefaultSpread = time.Second

// Config says how a Server lingers. The zero value of each field gives its
// default. New copies what it needs.
type Config struct {
	// Upgrader is what replaces the process; nil if nothing does.
	Upgrader *handoff.Upgrader

	// Delay is how long [Server.Shutdown] accepts and serves connections on before
	// the linger begins, while each response ends its connection: for a load balancer
	// that takes its time to send new connections elsewhere. [Server.Readiness] fails
	// from the first moment on. Zero means none. It does not apply when the Upgrader
	// is done: a successor accepts, or nothing.
	Delay time.Duration

	// LingerTimeout bounds the linger without an Upgrader: connections that are idle
	// then are closed, and those that handlers have taken are cut. Requests that are
	// being served have until the end of Shutdown's context. Zero means
	// [handoff.DefaultLingerTimeout], negative no limit. With an Upgrader, its
	// Config has the limit.
	LingerTimeout time.Duration

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
	delay         time.Duration
	lingerTimeout time.Duration
	goodbye       func(context.Context, net.Conn)
	spread        time.Duration
	stay          bool
	ownTickets    bool
	logger        hclog.Logger
}

func newConfig(c *Config) config {
	if c == nil {
		c = &Config{}
	}
	k := config{delay: c.Delay, lingerTimeout: cmp.Or(c.LingerTimeout, handoff.DefaultLingerTimeout), goodbye: c.Goodbye, spread: c.Spread, stay: c.Stay, ownTickets: c.OwnTickets, logger: c.Logger}
	if k.spread == 0 {
		k.spread = DefaultSpread
	}
	if k.logger == nil {
		k.logger = hclog.NewNullLogger()
	}
	return k
}
