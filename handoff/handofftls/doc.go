// Package handofftls moves TLS connections of a server to its successor, with the public
// API of crypto/tls alone. The client does not notice: no handshake, no lost byte.
//
//	cfg := &handofftls.Config{TLS: tlsConfig}
//	from, err := up.Conns(cfg.Name("chat")) // before up.Ready, and only if cfg.Probe is nil
//	c, err := handofftls.Server(ctx, conn, cfg)
//	...
//	err = handofftls.Send(ctx, up, "chat", c, state)     // in the predecessor, after up.Done
//	c, state, err := handofftls.Receive(<-from, cfg)     // in the successor
//
// A server of package handoffhttp needs none of this: it has a switch, MoveTLS. This
// package is for other protocols, and for connections that a handler has hijacked.
//
// # How it works
//
// Until its first move, crypto/tls serves a connection. A net.Conn below it counts the
// records in both directions by their headers, and takes the connection's secrets from the
// key log that crypto/tls writes (each connection has a KeyLogWriter of its own, which
// chains the user's). The connection can move when the last record is complete, and when
// the lengths of all records, less what each has beside its data, are as many bytes as Read
// has returned. That is not the case after padding or an update of the client's keys, or
// while crypto/tls has data that Read has not returned. In the successor, a record layer of
// this package serves the connection, with the AEADs of the standard library: KeyUpdate,
// alerts, close_notify. There it can move again.
//
// TLS 1.3 moves, and TLS 1.2 with an AEAD in a session that was not resumed.
//
// # Security
//
// The keys of a connection are in the memory of the process that serves it, as always. In a
// move they go over the control socket, which only the service's own user and root can
// reach, and those whom handoff.Config.Allow admits; they are in no file. [Send] and
// [Receive] say what they overwrite. docs/tls.md is a threat model.
//
// No key is used twice with one sequence number. Send ends writing here, under the lock of
// all writers, before it makes the state. Receive writes nothing: the first record is the
// first Write's, or the answer to a record of the client. When it is in doubt whether the
// successor has used the state, because it died with it, Send closes the connection without
// a byte.
//
// In FIPS 140-3 mode nothing moves. A Config tests crypto/tls before its first use
// ([Config.Probe]), and if a later Go differs, nothing moves.
//
// # Concurrency and platforms
//
// A Conn may be used from several goroutines. Moves work where package handoff does, on
// Linux; on other systems it builds, and connections are served by crypto/tls.
package handofftls
