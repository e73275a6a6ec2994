package handoffquic

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/quic-go/quic-go"

	"github.com/seed-11c92bf9/baton/handoff"
	"github.com/seed-11c92bf9/baton/handoff/handoffhttp"
)

// DefaultGrace is the default of [Config.Grace].
const DefaultGrace = 3 * time.Second

// Config is how an address is served. The zero value of each field is its default.
type Config struct {
	// Network is udp, udp4 or udp6. Empty means udp.
	Network string
	// Lanes is [handoff.FlowConfig.Lanes].
	Lanes int
	// Retry reports whether a client has to prove its address by a Retry packet before the
	// server keeps state for it. Any goroutine calls it. nil means never.
	Retry func(client net.Addr) bool
	// Grace is the time from GOAWAY at the linger limit until the server closes the
	// connections that are left. Zero means DefaultGrace; more than 8 s is 8 s, because
	// Shutdown waits 10 s after the limit.
	Grace time.Duration
}

const maxGrace = 8 * time.Second

// idLen is the length of the server's connection IDs. It must be below 8: clients choose 8
// bytes or more for the ID of their first packets (RFC 9000, section 7.2), so that the
// length alone tells the two apart.
const idLen = 7

// ids say where packets have the destination connection ID (RFC 8999, sections 5.1, 5.2).
var ids = handoff.FlowIDs{Len: idLen, Forms: []handoff.FlowForm{
	{Mask: 0x80, Value: 0x80, LenAt: 5, At: 6}, // long header
	{Mask: 0x80, Value: 0, At: 1},              // short header
}}

// An Endpoint is a QUIC address whose connections stay with their process.
type Endpoint struct {
	// Transport accepts the connections. The caller may set its fields before the first
	// Listen, but for Conn, ConnectionIDGenerator, ConnContext and the keys.
	Transport *quic.Transport

	up      *handoff.Upgrader
	address string
	flows   *handoff.Flows

	mu      sync.Mutex
	open    int
	changed chan struct{} // capacity 1
}

// keys are the state that a process passes on.
type keys struct {
	reset quic.StatelessResetKey
	token quic.TokenGeneratorKey
}

const keysSize = len(quic.StatelessResetKey{}) + len(quic.TokenGeneratorKey{})

// Listen takes over the address of the predecessor, or binds it. It is called before Ready.
// The caller calls Close after the last connection, and before Shutdown. The errors are
// those of [handoff.Upgrader.ListenFlows]. A nil cfg is the zero Config.
func Listen(ctx context.Context, up *handoff.Upgrader, address string, cfg *Config) (*Endpoint, error) {
	if cfg == nil {
		cfg = new(Config)
	}
	flows, err := up.ListenFlows(ctx, cmp.Or(cfg.Network, "udp"), address, handoff.FlowConfig{IDs: ids, Lanes: cfg.Lanes})
	if err != nil {
		return nil, err
	}
	e := &Endpoint{up: up, address: address, flows: flows, changed: make(chan struct{}, 1)}
	k, err := e.keys("handoffquic keys " + address)
	if err != nil {
		return nil, errors.Join(err, flows.Close())
	}
	e.Transport = &quic.Transport{
		Conn: flows.Conn(), ConnectionIDGenerator: generator{flows}, ConnContext: e.count,
		StatelessResetKey: &k.reset, TokenGeneratorKey: &k.token, VerifySourceAddress: cfg.Retry,
	}
	return e, nil
}

// keys returns the predecessor's keys, or makes them, and has them passed on.
func (e *Endpoint) keys(name string) (*keys, error) {
	var all [keysSize]byte
	f, err := e.up.State(name)
	switch {
	case err == nil:
		_, err = io.ReadFull(f, all[:])
		if err := errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("handoffquic: the predecessor's keys: %w", err)
		}
	case errors.Is(err, os.ErrNotExist):
		_, _ = rand.Read(all[:]) // it never fails (Go 1.24)
	default:
		return nil, err
	}
	e.up.ProvideState(name, func(_ context.Context, w io.Writer) error {
		_, err := w.Write(all[:])
		return err
	})
	k := new(keys)
	copy(k.token[:], all[copy(k.reset[:], all[:]):])
	return k, nil
}

// TLS returns a configuration for the Listen of Transport that has what cfg has, and passes
// session ticket keys on to the successor, as [handoffhttp.ShareTickets] does. A call of
// [http3.ConfigureTLSConfig] on the result keeps that.
func (e *Endpoint) TLS(cfg *tls.Config) (*tls.Config, error) {
	base := cfg.Clone()
	if err := handoffhttp.ShareTickets(e.up, "handoffquic tickets "+e.address, base); err != nil {
		return nil, err
	}
	// quic-go works on a copy, and so would not see the next day's key in base.
	next := base.GetConfigForClient
	base.GetConfigForClient = nil
	outer := base.Clone()
	outer.GetConfigForClient = func(chi *tls.ClientHelloInfo) (*tls.Config, error) {
		if c, err := next(chi); c != nil || err != nil {
			return c, err
		}
		return base, nil
	}
	return outer, nil
}

// count counts a connection from its first packet to its end.
func (e *Endpoint) count(ctx context.Context, _ *quic.ClientInfo) (context.Context, error) {
	e.add(1)
	context.AfterFunc(ctx, func() { e.add(-1) })
	return ctx, nil
}

func (e *Endpoint) add(n int) {
	e.mu.Lock()
	e.open += n
	e.mu.Unlock()
	select {
	case e.changed <- struct{}{}:
	default:
	}
}

// Open returns how many connections are open, handshakes under way included. It is what
// [handoff.Upgrader.Hold] asks for.
func (e *Endpoint) Open() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.open
}

// settle is the time after the end of accepting in which packets are read that the kernel
// had given to this process before.
const settle = 200 * time.Millisecond

// Linger waits until no connection is open, or until expired is closed, and reports
// whether none is. It is called after Done.
func (e *Endpoint) Linger(expired <-chan struct{}) bool {
	timer := time.NewTimer(settle)
	defer timer.Stop()
	settled := false
	for !settled || e.Open() > 0 {
		select {
		case <-e.changed:
		case <-timer.C:
			settled = true
		case <-expired:
			return e.Open() == 0
		}
	}
	return true
}

// Close closes the connections that are open, and stops reading. It leaves the address to
// Shutdown.
func (e *Endpoint) Close() error { return e.Transport.Close() }

// A generator makes connection IDs of this process.
type generator struct{ flows *handoff.Flows }

func (generator) ConnectionIDLen() int { return idLen }

func (g generator) GenerateConnectionID() (quic.ConnectionID, error) {
	id := make([]byte, idLen)
	_, _ = rand.Read(id) // it never fails (Go 1.24)
	if err := g.flows.Mark(id); err != nil {
		return quic.ConnectionID{}, err
	}
	return quic.ConnectionIDFromBytes(id), nil
}
