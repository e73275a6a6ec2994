package handofftls

import (
	"crypto/cipher"
	"crypto/tls"
	"sync"
)

// A Config says how connections are made and received. It must not be copied or changed
// after its first use. Several goroutines may use it.
type Config struct {
	// TLS is the configuration of the connections, as for [tls.Server]. Its callbacks and
	// its KeyLogWriter are called as crypto/tls calls them. Server requires it; Receive
	// does not use it.
	TLS *tls.Config

	// ChaCha20Poly1305 makes an AEAD of a key of 32 bytes: use New of
	// golang.org/x/crypto/chacha20poly1305. The standard library exports none. nil means
	// that connections with these cipher suites don't move.
	ChaCha20Poly1305 func(key []byte) (cipher.AEAD, error)

	once   sync.Once
	base   *tls.Config // for tls.Server
	probed error
}

// Probe returns why no connection of this Config can move in this process, or nil. In
// FIPS 140-3 mode, and with a Go whose crypto/tls is not the one that this package knows,
// nothing moves: Server then returns connections of plain crypto/tls. Call Probe before
// [handoff.Upgrader.Conns], and ask for no connections if it returns an error. The first
// call makes a handshake and a move in memory, for each version and cipher suite.
func (cfg *Config) Probe() error {
	cfg.prepare()
	return cfg.probed
}

func (cfg *Config) prepare() {
	cfg.once.Do(func() {
		cfg.probed = probe(cfg.ChaCha20Poly1305)
		if cfg.TLS != nil {
			cfg.base = tapped(cfg.TLS)
		}
	})
}

// tapped returns a config for connections on a tap. Each handshake gets a clone of what
// the user's config gives for it, with a KeyLogWriter of its own. Session ticket keys stay
// those of the user's config, or crypto/tls makes them for the config that tapped returns
// (tls.Config.ticketKeys).
func tapped(user *tls.Config) *tls.Config {
	base := user.Clone()
	base.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		t, ok := hello.Conn.(*tap)
		if !ok {
			return nil, nil // can't happen: base is for taps alone
		}
		use := user
		if next := user.GetConfigForClient; next != nil {
			c, err := next(untapped(hello))
			if err != nil {
				return nil, err
			}
			if c != nil {
				use = c
			}
		}
		own := use.Clone()
		own.KeyLogWriter = &keyLog{tap: t, user: use.KeyLogWriter}
		if next := use.GetCertificate; next != nil {
			own.GetCertificate = func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
				return next(untapped(hello))
			}
		}
		return own, nil
	}
	return base
}

// untapped returns a hello whose Conn is the user's.
func untapped(hello *tls.ClientHelloInfo) *tls.ClientHelloInfo {
	h := *hello
	if t, ok := h.Conn.(*tap); ok {
		h.Conn = t.Conn
	}
	return &h
}
