package handoffhttp

import (
	"cmp"
	"context"
	"crypto/cipher"
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
	// Upgrader replaces the process by its next version. nil means that nothing does.
	Upgrader *handoff.Upgrader

	// Delay is the time for which a server that ends still accepts and serves connections
	// before the linger begins, because a load balancer needs time to send new
	// connections elsewhere. In this time each response ends its connection, and
	// [Server.Readiness] answers 503. The end begins with [Server.Shutdown], or with the
	// end of Run's context. With an Upgrader it begins with a stop signal or an operator's
	// request as well, see [handoff.Upgrader.BeforeStop], and a second stop signal ends
	// the delay. Zero means no delay. There is none either when a successor has replaced
	// this process, which accepts no more then.
	Delay time.Duration

	// LingerTimeout bounds the linger of a server without an Upgrader: at the limit the
	// Server closes idle connections, and cuts those that handlers have hijacked.
	// Requests in progress have until the end of Shutdown's context. Zero means
	// [handoff.DefaultLingerTimeout], negative no limit. With an Upgrader,
	// LingerTimeout of the Upgrader's Config is the limit.
	LingerTimeout time.Duration

	// Goodbye is called once for each connection that a handler has hijacked: when the
	// linger begins, or when the handler hijacks the connection during the linger. It can
	// end the connection by the rules of its protocol, or pass it on by
	// [handoff.Upgrader.SendConn]. No goroutine may use the connection while SendConn
	// runs: end a handler's Read by a read deadline in the past, and add the bytes that
	// it has read to the state. conn is the one that Hijack returned. Goodbye is called
	// in a goroutine of its own, and must return when ctx ends, at the linger limit. nil
	// means that nothing is called; a handler can also watch [Lingering].
	Goodbye func(ctx context.Context, conn net.Conn)

	// Spread is the time over which Linger closes the connections that are still idle at
	// the linger limit, so that their clients don't all connect again at once. Zero means
	// DefaultSpread, negative none.
	Spread time.Duration

	// Stay keeps connections from moving: the predecessor ends each after a response with
	// "Connection: close".
	Stay bool

	// MoveTLS has idle HTTP/1 connections of [Server.ServeTLS] move to a successor that has
	// it too, with their keys, without a handshake: see package handofftls for which of
	// them can, and for what that means for security. HTTP/2 connections end with GOAWAY,
	// as without. Handlers and hooks then get no *[tls.Conn] of an HTTP/1 connection but a
	// wrapper with its ConnectionState, and ConnState reports StateNew after the handshake.
	MoveTLS bool

	// ChaCha20Poly1305 is the field of [handofftls.Config] for MoveTLS. Without it,
	// connections with these cipher suites don't move.
	ChaCha20Poly1305 func(key []byte) (cipher.AEAD, error)

	// OwnTickets has ServeTLS leave session ticket keys as they are: for a
	// program that sets them itself.
	OwnTickets bool

	// Logger gets a line for each failure, and for the end of a linger. nil
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
	moveTLS       bool
	chacha        func(key []byte) (cipher.AEAD, error)
	logger        hclog.Logger
}

func newConfig(c *Config) config {
	if c == nil {
		c = &Config{}
	}
	k := config{delay: c.Delay, lingerTimeout: cmp.Or(c.LingerTimeout, handoff.DefaultLingerTimeout), goodbye: c.Goodbye, spread: c.Spread, stay: c.Stay, ownTickets: c.OwnTickets, moveTLS: c.MoveTLS, chacha: c.ChaCha20Poly1305, logger: c.Logger}
	if k.spread == 0 {
		k.spread = DefaultSpread
	}
	if k.logger == nil {
		k.logger = hclog.NewNullLogger()
	}
	return k
}
